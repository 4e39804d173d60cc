/* free_port.h: a port for a server that the test starts. */
#pragma once

/* A port of 127.0.0.1 on which nobody listens, below the range that the kernel gives to outgoing connections: those of tests that run at
 * the same time cannot take it before the server does. Fails the test when it finds none. */
int free_port(void);
