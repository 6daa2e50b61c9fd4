// What the echo servers in C have in common: options, listening sockets, threads.
#ifndef COMMON_H
#define COMMON_H

// How much is received at once.
#define BUFFER (64 * 1024)

// How many connections may wait to be accepted.
#define BACKLOG 1024

// Reads the command line, listens on as many sockets as it asks for threads, says where on standard
// output, and runs `serve`, which must not return, on each thread with its own socket. The sockets
// are in blocking mode, and what is accepted from them has TCP_NODELAY.
_Noreturn void run_on_threads(int argc, char **argv, void (*serve)(int listener));

// Ends the process with a message: what failed, and why.
_Noreturn void fail(const char *what, const char *why);

#endif
