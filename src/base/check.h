/* check.h: invariants.
 *
 * REQUIRE stays in release builds and is for broken invariants of our own (wrong thread, corrupt list); it prints
 * where and aborts, so that the supervisor restarts the node. Never for anything a peer can cause.
 */
#pragma once

_Noreturn void check_failed(const char *what, const char *file, int line);

#define REQUIRE(condition) ((condition) ? (void)0 : check_failed(#condition, __FILE__, __LINE__))

#ifdef NDEBUG
#define ASSERT(condition) ((void)0)
#else
#define ASSERT(condition) REQUIRE(condition)
#endif
