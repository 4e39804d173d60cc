#include "auth_test.h"

#include "base/map.h"

int main(void)
{
    map_seed();
    int failed = run_base64url_tests() + run_key_tests() + run_jwt_tests() + run_rfc7515_tests() +
                 run_claims_tests() + run_grant_tests();
    issuer_free();
    return failed;
}
