// The echo server on libevent: one event base per thread, each with its own listener.
//
// Tuned: plain events instead of bufferevents, whose buffers cost more than the rest of the loop;
// they are part of the connection, so they are not allocated apart; no locks, as no base is shared;
// changes of interest are gathered (the changelist); the base's clock is not read after each wait.
// All connections of a loop receive into one buffer. Only what the socket does not take is copied;
// until that is gone, nothing is read.
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <event2/listener.h>
#include <event2/util.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct connection {
    struct event readable, writable;
    char *buffer; // the loop's
    char *unsent; // what was not taken by the socket, or null
    size_t length, sent;
};

struct loop {
    struct event_base *base;
    char buffer[BUFFER];
};

static void close_connection(struct connection *connection) {
    event_del(&connection->readable);
    event_del(&connection->writable);
    close(event_get_fd(&connection->readable));
    free(connection->unsent);
    free(connection);
}

// How much the socket took, 0 if it is full, or a negative number if it failed.
static ssize_t send_some(int fd, const char *data, size_t length) {
    ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);
    return sent < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : sent;
}

static int write_later(struct connection *connection, const char *data, size_t length) {
    connection->unsent = malloc(length);
    if (!connection->unsent)
        return -1;
    memcpy(connection->unsent, data, length);
    connection->length = length;
    connection->sent = 0;
    event_del(&connection->readable);
    return event_add(&connection->writable, NULL);
}

static void on_readable(evutil_socket_t fd, short what, void *argument) {
    (void)what;
    struct connection *connection = argument;
    ssize_t count = recv(fd, connection->buffer, BUFFER, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0)
        return close_connection(connection);
    ssize_t sent = send_some(fd, connection->buffer, count);
    if (sent >= 0 && sent < count)
        sent = write_later(connection, connection->buffer + sent, count - sent);
    if (sent < 0)
        close_connection(connection);
}

static void on_writable(evutil_socket_t fd, short what, void *argument) {
    (void)what;
    struct connection *connection = argument;
    size_t left = connection->length - connection->sent;
    ssize_t sent = send_some(fd, connection->unsent + connection->sent, left);
    if (sent < 0)
        return close_connection(connection);
    connection->sent += sent;
    if (connection->sent < connection->length)
        return;
    free(connection->unsent);
    connection->unsent = NULL;
    event_del(&connection->writable);
    if (event_add(&connection->readable, NULL))
        close_connection(connection);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                      int length, void *argument) {
    (void)listener, (void)address, (void)length;
    struct loop *loop = argument;
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection)
        fail("a connection", "out of memory");
    connection->buffer = loop->buffer;
    event_assign(&connection->readable, loop->base, fd, EV_READ | EV_PERSIST, on_readable, connection);
    event_assign(&connection->writable, loop->base, fd, EV_WRITE | EV_PERSIST, on_writable, connection);
    if (event_add(&connection->readable, NULL))
        close_connection(connection);
}

static struct event_base *new_base(void) {
    struct event_config *config = event_config_new();
    if (!config)
        fail("event_config_new", "out of memory");
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_NO_CACHE_TIME |
                                      EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
    struct event_base *base = event_base_new_with_config(config);
    if (!base)
        fail("event_base_new_with_config", "no usable back end");
    event_config_free(config);
    return base;
}

static void serve(int socket) {
    struct loop *loop = malloc(sizeof *loop);
    if (!loop)
        fail("the buffer", "out of memory");
    loop->base = new_base();
    evutil_make_socket_nonblocking(socket);
    // It listens already, which a backlog of 0 says.
    if (!evconnlistener_new(loop->base, on_accept, loop, LEV_OPT_CLOSE_ON_EXEC, 0, socket))
        fail("evconnlistener_new", strerror(errno));
    event_base_dispatch(loop->base);
}

int main(int argc, char **argv) {
    run_on_threads(argc, argv, serve);
}
