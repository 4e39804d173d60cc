/* tickets.c: tickets for a run (--ticket-file), their making, and what a bare check of one costs.
 *
 * The check that is measured is the one that everybody writes who has an EVP key: a context of its own, DigestVerifyInit,
 * DigestVerify (for HS256 one HMAC); nothing of src/auth is used. */
#include "bench/tickets.h"

#include "base/bytes.h"
#include "bench/bench.h"

#include <errno.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

enum { SECRET_BYTES = 32, SIGNATURE_MAX = 1024, LIFE_SECONDS = 86400, VERIFY_ROUNDS = 20000 };

int tickets_load(const char *path, struct ticket_list *out)
{
    FILE *file = fopen(path, "r");
    struct buf text = {0};
    char chunk[65536];
    size_t got;
    while (file && (got = fread(chunk, 1, sizeof(chunk), file)) > 0)
        buf_append(&text, chunk, got);
    if (!file || ferror(file) || text.failed || text.len == 0) {
        fprintf(stderr, "halley-bench: --ticket-file %s: %s\n", path,
                file && !ferror(file) ? "empty, or out of memory" : strerror(errno));
        if (file)
            fclose(file);
        buf_fini(&text);
        return -1;
    }
    fclose(file);
    buf_byte(&text, '\n');
    size_t count = 0;
    for (size_t i = 0; i < text.len; i++)
        count += text.data[i] == '\n' && i > 0 && text.data[i - 1] != '\n';
    out->lines = calloc(count ? count : 1, sizeof(char *));
    if (!out->lines || text.failed) {
        fprintf(stderr, "halley-bench: --ticket-file %s: out of memory\n", path);
        free(out->lines);
        buf_fini(&text);
        return -1;
    }
    out->count = 0;
    char *rest = text.data; /* kept for as long as the process lives */
    text.data[text.len - 1] = '\0';
    for (char *line; (line = strsep(&rest, "\n"));) {
        if (*line && out->count < count)
            out->lines[out->count++] = line;
    }
    if (out->count > 0)
        return 0;
    fprintf(stderr, "halley-bench: --ticket-file %s: holds no ticket\n", path);
    free(out->lines);
    buf_fini(&text);
    return -1;
}

/* What signs, and what is measured. */
struct maker {
    const char *alg;
    EVP_PKEY *key; /* NULL: HS256 */
    char secret[2 * SECRET_BYTES + 1];
};

static void append_base64url(struct buf *out, const void *data, size_t len)
{
    unsigned char encoded[4 * SIGNATURE_MAX / 3 + 8];
    int count = EVP_EncodeBlock(encoded, data, (int)len);
    while (count > 0 && encoded[count - 1] == '=')
        count--;
    for (int i = 0; i < count; i++)
        buf_byte(out, (char)(encoded[i] == '+' ? '-' : encoded[i] == '/' ? '_' : encoded[i]));
}

static bool maker_init(struct maker *maker, const char *alg)
{
    unsigned char secret[SECRET_BYTES];
    *maker = (struct maker){.alg = alg};
    if (strcmp(alg, "ES256") == 0)
        maker->key = EVP_EC_gen("P-256");
    else if (strcmp(alg, "RS256") == 0)
        maker->key = EVP_RSA_gen(2048);
    else if (strcmp(alg, "HS256") != 0)
        return false;
    if (RAND_bytes(secret, sizeof(secret)) != 1)
        return false;
    for (int i = 0; i < SECRET_BYTES; i++)
        snprintf(maker->secret + 2 * i, 3, "%02x", secret[i]);
    return maker->key || strcmp(alg, "HS256") == 0;
}

static size_t hmac(const struct maker *maker, struct bytes text, unsigned char *out)
{
    unsigned len = 0;
    HMAC(EVP_sha256(), maker->secret, 2 * SECRET_BYTES, (const unsigned char *)text.data, text.len,
         out, &len);
    return len;
}

/* As OpenSSL has it: ES256 in DER. */
static size_t sign_der(const struct maker *maker, struct bytes text, unsigned char *out)
{
    size_t len = SIGNATURE_MAX;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, maker->key) == 1 &&
                EVP_DigestSign(ctx, out, &len, (const unsigned char *)text.data, text.len) == 1;
    EVP_MD_CTX_free(ctx);
    return good ? len : 0;
}

static size_t der_to_raw(unsigned char *signature, size_t len)
{
    const unsigned char *at = signature;
    ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &at, (long)len);
    if (!sig)
        return 0;
    unsigned char raw[64];
    bool good = BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, 32) == 32 &&
                BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + 32, 32) == 32;
    ECDSA_SIG_free(sig);
    memcpy(signature, raw, sizeof(raw));
    return good ? sizeof(raw) : 0;
}

static void make_ticket(const struct maker *maker, unsigned number, struct buf *out)
{
    unsigned char signature[SIGNATURE_MAX];
    char header[64];
    char claims[128];
    snprintf(header, sizeof(header), "{\"alg\":\"%s\",\"kid\":\"bench\"}", maker->alg);
    snprintf(claims, sizeof(claims), "{\"sub\":\"u%015u\",\"exp\":%lld,\"rooms\":[\"bench*\"]}",
             number, (long long)time(NULL) + LIFE_SECONDS);
    buf_clear(out);
    append_base64url(out, header, strlen(header));
    buf_byte(out, '.');
    append_base64url(out, claims, strlen(claims));
    size_t len = maker->key ? sign_der(maker, buf_view(out), signature)
                            : hmac(maker, buf_view(out), signature);
    if (strcmp(maker->alg, "ES256") == 0)
        len = der_to_raw(signature, len);
    buf_byte(out, '.');
    append_base64url(out, signature, len);
}

static double cpu_seconds(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

static bool verify(const struct maker *maker, struct bytes text, const unsigned char *signature,
                   size_t len)
{
    unsigned char own[EVP_MAX_MD_SIZE];
    if (!maker->key)
        return hmac(maker, text, own) == len && CRYPTO_memcmp(own, signature, len) == 0;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good =
        ctx && EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, maker->key) == 1 &&
        EVP_DigestVerify(ctx, signature, len, (const unsigned char *)text.data, text.len) == 1;
    EVP_MD_CTX_free(ctx);
    return good;
}

/* CPU microseconds of one check of a text as long as a ticket's; negative where it fails. */
static double measure(const struct maker *maker)
{
    unsigned char signature[SIGNATURE_MAX];
    char data[160];
    memset(data, 'x', sizeof(data));
    struct bytes text = bytes_of(data, sizeof(data));
    size_t len = maker->key ? sign_der(maker, text, signature) : hmac(maker, text, signature);
    double begin = 0;
    for (int i = 0; i < VERIFY_ROUNDS + VERIFY_ROUNDS / 10; i++) {
        if (i == VERIFY_ROUNDS / 10) /* warm by then */
            begin = cpu_seconds();
        if (!verify(maker, text, signature, len))
            return -1;
    }
    return 1e6 * (cpu_seconds() - begin) / VERIFY_ROUNDS;
}

static FILE *create(const char *folder, const char *name)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    if (!file)
        fprintf(stderr, "halley-bench: %s: %s\n", path, strerror(errno));
    return file;
}

static int write_files(const struct maker *maker, unsigned count, const char *folder)
{
    struct buf ticket = {0};
    if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
        fprintf(stderr, "halley-bench: %s: %s\n", folder, strerror(errno));
        return EXIT_USE;
    }
    FILE *key = create(folder, "key");
    FILE *tickets = key ? create(folder, "tickets") : NULL;
    if (key && maker->key)
        PEM_write_PUBKEY(key, maker->key);
    else if (key)
        fprintf(key, "%s\n", maker->secret);
    for (unsigned i = 0; tickets && i < count; i++) {
        make_ticket(maker, i, &ticket);
        fwrite(ticket.data, 1, ticket.len, tickets);
        fputc('\n', tickets);
    }
    bool good = tickets && !ticket.failed && !ferror(tickets);
    buf_fini(&ticket);
    if (key)
        good &= fclose(key) == 0;
    if (tickets)
        good &= fclose(tickets) == 0;
    return good ? 0 : EXIT_INTERNAL;
}

int tickets_main(int argc, char **argv)
{
    struct maker maker;
    char *end = NULL;
    unsigned long count = argc == 4 ? strtoul(argv[2], &end, 10) : 0;
    bool making = argc == 4 && end && *end == '\0' && count > 0 && count <= 5000000;
    if ((argc != 2 && !making) || !maker_init(&maker, argv[1])) {
        fprintf(
            stderr,
            "usage: halley-bench tickets HS256|RS256|ES256 [COUNT FOLDER]\n"
            "Writes a new key (FOLDER/key: the public half, or the secret) and COUNT tickets of\n"
            "the kid `bench` (FOLDER/tickets, for --ticket-file); without these it prints the CPU\n"
            "microseconds of one bare check with OpenSSL.\n");
        return EXIT_USE;
    }
    int code = 0;
    if (making) {
        code = write_files(&maker, (unsigned)count, argv[3]);
    } else {
        double us = measure(&maker);
        printf("%.3f\n", us);
        code = us < 0 ? EXIT_INTERNAL : 0;
    }
    EVP_PKEY_free(maker.key);
    return code;
}
