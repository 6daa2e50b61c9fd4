// The echo server on libuv: one loop per thread, each with its own listener.
//
// Tuned: all connections of a loop receive into one buffer, and what was received is sent at once
// with uv_try_write, so a message costs one recv and one send and nothing is allocated. Only what
// the socket does not take is copied and queued; until that is gone, nothing is read.
#include "common.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

struct connection {
    uv_tcp_t handle;
    uv_write_t write;
    char *unsent;
};

static void check(const char *what, int result) {
    if (result < 0)
        fail(what, uv_strerror(result));
}

static void on_close(uv_handle_t *handle) {
    free(handle->data);
}

static void close_connection(struct connection *connection) {
    uv_close((uv_handle_t *)&connection->handle, on_close);
}

static void lend_buffer(uv_handle_t *handle, size_t size, uv_buf_t *buffer) {
    (void)size;
    *buffer = uv_buf_init(handle->loop->data, BUFFER);
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer);

static void on_written(uv_write_t *write, int status) {
    struct connection *connection = write->data;
    free(connection->unsent);
    if (status < 0 || uv_read_start((uv_stream_t *)&connection->handle, lend_buffer, on_read) < 0)
        close_connection(connection);
}

// Queues what the socket did not take.
static int write_later(struct connection *connection, const char *data, size_t length) {
    uv_stream_t *stream = (uv_stream_t *)&connection->handle;
    connection->unsent = malloc(length);
    if (!connection->unsent)
        return UV_ENOMEM;
    memcpy(connection->unsent, data, length);
    uv_buf_t rest = uv_buf_init(connection->unsent, length);
    connection->write.data = connection;
    uv_read_stop(stream);
    return uv_write(&connection->write, stream, &rest, 1, on_written);
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer) {
    struct connection *connection = stream->data;
    if (count == 0)
        return; // There was nothing to read after all.
    if (count < 0)
        return close_connection(connection);
    uv_buf_t received = uv_buf_init(buffer->base, count);
    int sent = uv_try_write(stream, &received, 1);
    if (sent == UV_EAGAIN)
        sent = 0;
    if (sent >= 0 && sent < count)
        sent = write_later(connection, buffer->base + sent, count - sent);
    if (sent < 0)
        close_connection(connection);
}

static void on_connection(uv_stream_t *listener, int status) {
    if (status < 0) {
        fprintf(stderr, "accept: %s\n", uv_strerror(status));
        return;
    }
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection)
        fail("a connection", "out of memory");
    uv_stream_t *stream = (uv_stream_t *)&connection->handle;
    check("uv_tcp_init", uv_tcp_init(listener->loop, &connection->handle));
    connection->handle.data = connection;
    if (uv_accept(listener, stream) < 0 || uv_read_start(stream, lend_buffer, on_read) < 0)
        close_connection(connection);
}

static void serve(int socket) {
    uv_loop_t loop;
    uv_tcp_t listener;
    check("uv_loop_init", uv_loop_init(&loop));
    loop.data = malloc(BUFFER);
    if (!loop.data)
        fail("the buffer", "out of memory");
    check("uv_tcp_init", uv_tcp_init(&loop, &listener));
    check("uv_tcp_open", uv_tcp_open(&listener, socket));
    check("uv_listen", uv_listen((uv_stream_t *)&listener, BACKLOG, on_connection));
    check("uv_run", uv_run(&loop, UV_RUN_DEFAULT));
}

int main(int argc, char **argv) {
    run_on_threads(argc, argv, serve);
}
