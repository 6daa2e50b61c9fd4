#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct options {
    struct sockaddr_storage address;
    socklen_t length;
    long threads;
};

struct thread {
    void (*serve)(int listener);
    int listener;
};

void fail(const char *what, const char *why) {
    fprintf(stderr, "error: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

// HOST:PORT, or [HOST]:PORT, in numbers.
static void parse_address(const char *text, struct options *options) {
    char *host = strdup(text), *start = host;
    char *colon = host ? strrchr(host, ':') : NULL;
    if (!colon)
        fail(text, "is not an address, as in 127.0.0.1:7000");
    *colon = 0;
    if (host[0] == '[' && colon > host && colon[-1] == ']') {
        colon[-1] = 0;
        start++;
    }
    struct addrinfo *found, hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                                     .ai_socktype = SOCK_STREAM};
    int error = getaddrinfo(start, colon + 1, &hints, &found);
    if (error)
        fail(text, gai_strerror(error));
    memcpy(&options->address, found->ai_addr, found->ai_addrlen);
    options->length = found->ai_addrlen;
    freeaddrinfo(found);
    free(host);
}

static void parse_threads(const char *text, struct options *options) {
    char *end;
    errno = 0;
    options->threads = strtol(text, &end, 10);
    if (errno || *end || end == text || options->threads < 1 || options->threads > 1024)
        fail(text, "is not a number of threads, 1 to 1024");
}

static struct options parse(int argc, char **argv) {
    static const struct option names[] = {{"listen", required_argument, NULL, 'l'},
                                          {"threads", required_argument, NULL, 't'},
                                          {NULL, 0, NULL, 0}};
    struct options options = {.threads = 1};
    int option;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (option == 'l')
            parse_address(optarg, &options);
        else if (option == 't')
            parse_threads(optarg, &options);
        else
            exit(EXIT_FAILURE); // getopt has said why.
    }
    if (!options.length || optind < argc)
        fail("usage", "--listen ADDRESS [--threads COUNT]");
    return options;
}

static int listen_on(const struct options *options) {
    int on = 1;
    int fd = socket(options->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    // On Linux, accepted sockets inherit TCP_NODELAY.
    bool done = fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) &&
                !setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) &&
                !setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) &&
                !bind(fd, (const struct sockaddr *)&options->address, options->length) &&
                !listen(fd, BACKLOG);
    if (!done)
        fail("listen", strerror(errno));
    return fd;
}

static void announce(const struct options *options) {
    char host[INET6_ADDRSTRLEN], port[8];
    int error = getnameinfo((const struct sockaddr *)&options->address, options->length, host,
                            sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
    if (error)
        fail("getnameinfo", gai_strerror(error));
    bool brackets = options->address.ss_family == AF_INET6;
    printf(brackets ? "listening on [%s]:%s\n" : "listening on %s:%s\n", host, port);
    fflush(stdout);
}

static void *run(void *argument) {
    struct thread *thread = argument;
    thread->serve(thread->listener);
    return NULL;
}

void run_on_threads(int argc, char **argv, void (*serve)(int listener)) {
    struct options options = parse(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    struct thread *threads = calloc(options.threads, sizeof *threads);
    if (!threads)
        fail("threads", strerror(errno));
    for (long i = 0; i < options.threads; i++) {
        threads[i] = (struct thread){serve, listen_on(&options)};
        // The first one has chosen the port if any would do.
        if (getsockname(threads[0].listener, (struct sockaddr *)&options.address, &options.length))
            fail("getsockname", strerror(errno));
    }
    announce(&options);
    for (long i = 1; i < options.threads; i++) {
        pthread_t id;
        int error = pthread_create(&id, NULL, run, &threads[i]);
        if (error)
            fail("pthread_create", strerror(error));
    }
    run(&threads[0]);
    fail("serve", "returned");
}
