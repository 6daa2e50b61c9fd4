// The echo server on io_uring: what the kernel's completions can do at best. One ring per thread,
// each with its own listener.
//
// Tuned: one io_uring_enter per turn submits all sends and waits. Accepting and receiving are
// requested once (multishot); received bytes come in buffers the kernel picks (a buffer ring) and
// are sent from where they are; sockets are direct descriptors, which exist in the ring only.
// Completions run when the loop waits (DEFER_TASKRUN), on a ring that only this thread uses
// (SINGLE_ISSUER).
//
// A send that takes everything posts no completion (CQE_SKIP_SUCCESS). It never waits for the
// socket (MSG_DONTWAIT), so when io_uring_enter returns, it either has taken everything or its
// completion says how much it took (MSG_WAITALL makes less than everything a failure). So buffers
// go back to the kernel a turn later, without a word from it. A connection has one send a turn, of
// all it received in it; what was not taken is copied, and one send at a time, with a completion,
// carries it out. Until that is done the connection's later bytes queue up behind it, and its
// receiving is cancelled.
//
// Buffers are few at first and doubled when the kernel runs out of them: it uses them in turn, and
// many would only spread the same bytes over more pages and cache lines.
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <liburing.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum {
    SUBMISSIONS = 256,
    COMPLETIONS = 4096,
    FIRST_BUFFERS = 16,
    MOST_BUFFERS = 1024, // not more than a sendmsg takes
    MOST_CONNECTIONS = 65536,
    // Buffers that started at the same place in a page would share the same few lines of the cache.
    STRIDE = BUFFER + 64,
    NONE = -1,
    TOOK_ALL = INT_MAX,
};

// What a completion is of: the lower byte of its user data; above it is the connection.
enum operation { ACCEPT, RECEIVE, SEND, SEND_KEPT, OTHER };

// Buffers of a connection, in the order of their bytes.
struct chain {
    int first, last;
};

// Bytes the socket did not take.
struct kept {
    char *data;
    size_t length, sent;
};

struct connection {
    bool receiving; // requested, and not ended
    bool ended;     // there is nothing more to receive
    bool failed;    // nothing more can be sent
    bool changed;   // is in the list of that name
    int send_result;
    struct chain received; // in this turn
    struct chain sent;     // by the last submission
    struct kept in_flight; // the kernel sends from it
    struct kept unsent;    // to follow when that is done
};

// Connections something is to be done about in this turn, each at most once.
struct list {
    int *slots;
    unsigned count;
};

struct loop {
    struct io_uring ring;
    int listener;
    bool accepting;
    bool short_of_buffers;
    bool closing; // a connection waits for nothing but the next turn
    struct io_uring_buf_ring *pool;
    char *memory;
    int buffers;
    unsigned lengths[MOST_BUFFERS];
    int next[MOST_BUFFERS]; // in the chain
    struct iovec vectors[MOST_BUFFERS];
    struct msghdr messages[MOST_BUFFERS];
    int vectors_used, messages_used;
    struct connection *connections; // by slot, the number of the direct descriptor
    struct list received, sent, changed;
};

static const struct chain EMPTY = {NONE, NONE};

static void check(const char *what, int result) {
    if (result < 0)
        fail(what, strerror(-result));
}

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (!memory)
        fail("memory", strerror(errno));
    return memory;
}

static void push(struct list *list, int slot) {
    list->slots[list->count++] = slot;
}

// Has the end of the turn look what comes next for a connection. While it receives, that is
// nothing.
static void changed(struct loop *loop, int slot) {
    struct connection *connection = &loop->connections[slot];
    if (connection->receiving || connection->changed)
        return;
    connection->changed = true;
    push(&loop->changed, slot);
}

// --- requests ------------------------------------------------------------------------------------

// An entry to fill. When there is none, those that are filled are submitted early.
static struct io_uring_sqe *next_entry(struct loop *loop) {
    struct io_uring_sqe *entry = io_uring_get_sqe(&loop->ring);
    if (!entry) {
        check("io_uring_submit", io_uring_submit(&loop->ring));
        entry = io_uring_get_sqe(&loop->ring);
    }
    if (!entry)
        fail("io_uring_submit", "took nothing");
    return entry;
}

static unsigned long long user_data(enum operation operation, int slot) {
    return (unsigned long long)slot << 8 | operation;
}

static void tag(struct io_uring_sqe *entry, enum operation operation, int slot, unsigned flags) {
    io_uring_sqe_set_data64(entry, user_data(operation, slot));
    io_uring_sqe_set_flags(entry, flags);
}

static void request_accept(struct loop *loop) {
    struct io_uring_sqe *entry = next_entry(loop);
    io_uring_prep_multishot_accept_direct(entry, loop->listener, NULL, NULL, 0);
    tag(entry, ACCEPT, 0, 0);
    loop->accepting = true;
}

static void request_receive(struct loop *loop, int slot) {
    struct io_uring_sqe *entry = next_entry(loop);
    io_uring_prep_recv_multishot(entry, slot, NULL, 0, 0);
    tag(entry, RECEIVE, slot, IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT);
    entry->buf_group = 0;
    loop->connections[slot].receiving = true;
}

static void cancel_receive(struct loop *loop, int slot) {
    if (!loop->connections[slot].receiving)
        return;
    struct io_uring_sqe *entry = next_entry(loop);
    io_uring_prep_cancel64(entry, user_data(RECEIVE, slot), 0);
    tag(entry, OTHER, slot, IOSQE_CQE_SKIP_SUCCESS);
}

static void request_close(struct loop *loop, int slot) {
    struct io_uring_sqe *entry = next_entry(loop);
    io_uring_prep_close_direct(entry, slot);
    tag(entry, OTHER, slot, IOSQE_CQE_SKIP_SUCCESS);
}

// --- the pool of buffers -------------------------------------------------------------------------

static char *buffer(struct loop *loop, int id) {
    return loop->memory + (size_t)id * STRIDE;
}

static void give_buffer(struct loop *loop, int id) {
    int mask = io_uring_buf_ring_mask(MOST_BUFFERS);
    io_uring_buf_ring_add(loop->pool, buffer(loop, id), BUFFER, id, mask, 0);
    io_uring_buf_ring_advance(loop->pool, 1);
}

static void give_back(struct loop *loop, struct chain *chain) {
    for (int id = chain->first; id != NONE; id = loop->next[id])
        give_buffer(loop, id);
    *chain = EMPTY;
}

static void append(struct loop *loop, struct chain *chain, int id) {
    loop->next[id] = NONE;
    if (chain->first == NONE)
        chain->first = id;
    else
        loop->next[chain->last] = id;
    chain->last = id;
}

static void grow_pool(struct loop *loop) {
    int target = loop->buffers ? loop->buffers * 2 : FIRST_BUFFERS;
    while (loop->buffers < target && loop->buffers < MOST_BUFFERS)
        give_buffer(loop, loop->buffers++);
}

// --- a connection --------------------------------------------------------------------------------

static bool is_blocked(const struct connection *connection) {
    return connection->in_flight.data != NULL;
}

// Requests what comes next for a connection: its end, or to receive again.
static void proceed(struct loop *loop, int slot) {
    struct connection *connection = &loop->connections[slot];
    connection->changed = false;
    if (connection->receiving || is_blocked(connection))
        return;
    if (!connection->ended && !connection->failed) {
        request_receive(loop, slot);
    } else if (connection->sent.first != NONE) {
        loop->closing = true;
    } else {
        request_close(loop, slot);
        // If accepting has stopped for want of descriptors, there is one now.
        if (!loop->accepting)
            request_accept(loop);
    }
}

// Gives up on a connection. It is closed when the kernel holds none of it any more.
static void abandon(struct loop *loop, int slot) {
    struct connection *connection = &loop->connections[slot];
    connection->failed = true;
    free(connection->unsent.data);
    connection->unsent = (struct kept){0};
    cancel_receive(loop, slot);
}

// Requests to send what was kept, if nothing of it is in flight already.
static void send_kept(struct loop *loop, int slot) {
    struct connection *connection = &loop->connections[slot];
    struct kept *kept = &connection->in_flight;
    if (!kept->data) {
        *kept = connection->unsent;
        connection->unsent = (struct kept){0};
    }
    if (!kept->data)
        return;
    struct io_uring_sqe *entry = next_entry(loop);
    io_uring_prep_send(entry, slot, kept->data + kept->sent, kept->length - kept->sent,
                       MSG_WAITALL | MSG_NOSIGNAL);
    tag(entry, SEND_KEPT, slot, IOSQE_FIXED_FILE);
}

static void kept_was_sent(struct loop *loop, int slot, int result) {
    struct connection *connection = &loop->connections[slot];
    struct kept *kept = &connection->in_flight;
    kept->sent += result > 0 ? result : 0;
    if (result < 0 && result != -EINTR)
        abandon(loop, slot);
    if (connection->failed || kept->sent == kept->length) {
        free(kept->data);
        *kept = (struct kept){0};
    }
    send_kept(loop, slot);
    changed(loop, slot);
}

// Copies a chain without its first bytes behind what is kept already.
static void keep(struct loop *loop, struct kept *kept, const struct chain *chain, size_t skip) {
    size_t more = 0;
    for (int id = chain->first; id != NONE; id = loop->next[id])
        more += loop->lengths[id];
    kept->data = realloc(kept->data, kept->length + more);
    if (!kept->data)
        fail("memory", strerror(errno));
    for (int id = chain->first; id != NONE; id = loop->next[id]) {
        size_t length = loop->lengths[id], from = skip < length ? skip : length;
        memcpy(kept->data + kept->length, buffer(loop, id) + from, length - from);
        kept->length += length - from;
        skip -= from;
    }
}

// --- sending what was received -------------------------------------------------------------------

// One message of several buffers. Both arrays have room for all buffers there are.
static struct msghdr *gather(struct loop *loop, const struct chain *chain) {
    struct msghdr *message = &loop->messages[loop->messages_used++];
    *message = (struct msghdr){.msg_iov = &loop->vectors[loop->vectors_used]};
    for (int id = chain->first; id != NONE; id = loop->next[id]) {
        loop->vectors[loop->vectors_used++] = (struct iovec){buffer(loop, id), loop->lengths[id]};
        message->msg_iovlen++;
    }
    return message;
}

static void request_send(struct loop *loop, int slot, const struct chain *chain) {
    const int flags = MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL;
    struct io_uring_sqe *entry = next_entry(loop);
    int id = chain->first;
    if (id == chain->last)
        io_uring_prep_send(entry, slot, buffer(loop, id), loop->lengths[id], flags);
    else
        io_uring_prep_sendmsg(entry, slot, gather(loop, chain), flags);
    tag(entry, SEND, slot, IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS);
}

static void send_received(struct loop *loop) {
    loop->messages_used = loop->vectors_used = 0;
    for (unsigned i = 0; i < loop->received.count; i++) {
        int slot = loop->received.slots[i];
        struct connection *connection = &loop->connections[slot];
        if (connection->failed) {
            give_back(loop, &connection->received);
        } else if (is_blocked(connection)) {
            keep(loop, &connection->unsent, &connection->received, 0);
            give_back(loop, &connection->received);
        } else {
            request_send(loop, slot, &connection->received);
            connection->send_result = TOOK_ALL;
            connection->sent = connection->received;
            connection->received = EMPTY;
            push(&loop->sent, slot);
        }
    }
    loop->received.count = 0;
}

// Sees to what the sends of the last submission left, and takes their buffers back.
static void settle_sent(struct loop *loop) {
    for (unsigned i = 0; i < loop->sent.count; i++) {
        int slot = loop->sent.slots[i];
        struct connection *connection = &loop->connections[slot];
        int result = connection->send_result;
        if (result >= 0 ? result != TOOK_ALL : result == -EAGAIN || result == -EINTR) {
            keep(loop, &connection->unsent, &connection->sent, result > 0 ? result : 0);
            send_kept(loop, slot);
            cancel_receive(loop, slot);
        } else if (result < 0) {
            abandon(loop, slot);
        }
        give_back(loop, &connection->sent);
        changed(loop, slot);
    }
    loop->sent.count = 0;
}

// --- completions ---------------------------------------------------------------------------------

static void accepted(struct loop *loop, const struct io_uring_cqe *completion) {
    int slot = completion->res;
    loop->accepting = completion->flags & IORING_CQE_F_MORE;
    if (slot >= 0) {
        loop->connections[slot] = (struct connection){.received = EMPTY, .sent = EMPTY};
        request_receive(loop, slot);
    } else {
        fprintf(stderr, "accept: %s\n", strerror(-slot));
    }
    if (!loop->accepting && slot != -ENFILE && slot != -EMFILE)
        request_accept(loop);
}

static void received(struct loop *loop, int slot, const struct io_uring_cqe *completion) {
    struct connection *connection = &loop->connections[slot];
    int result = completion->res;
    if (result > 0) {
        int id = completion->flags >> IORING_CQE_BUFFER_SHIFT;
        if (connection->received.first == NONE)
            push(&loop->received, slot);
        loop->lengths[id] = result;
        append(loop, &connection->received, id);
    } else if (result == 0) {
        connection->ended = true;
    } else if (result == -ENOBUFS) {
        loop->short_of_buffers = true;
    } else if (result != -ECANCELED) {
        connection->failed = true;
    }
    if (!(completion->flags & IORING_CQE_F_MORE)) {
        connection->receiving = false;
        changed(loop, slot);
    }
}

static void completed(struct loop *loop, const struct io_uring_cqe *completion) {
    int slot = completion->user_data >> 8;
    switch ((enum operation)(completion->user_data & 0xff)) {
    case ACCEPT:
        return accepted(loop, completion);
    case RECEIVE:
        return received(loop, slot, completion);
    case SEND:
        loop->connections[slot].send_result = completion->res;
        return;
    case SEND_KEPT:
        return kept_was_sent(loop, slot, completion->res);
    case OTHER:
        return; // There was nothing left to cancel.
    }
}

static void reap(struct loop *loop) {
    struct io_uring_cqe *completion;
    unsigned head, count = 0;
    io_uring_for_each_cqe(&loop->ring, head, completion) {
        completed(loop, completion);
        count++;
    }
    io_uring_cq_advance(&loop->ring, count);
}

// --- the loop ------------------------------------------------------------------------------------

// Submits everything, waits for a completion, and reaps all there are. Afterwards every send has
// said what it had to say.
static void submit_and_reap(struct loop *loop) {
    bool again;
    do {
        int result = io_uring_submit_and_wait(&loop->ring, loop->closing ? 0 : 1);
        if (result != -EINTR && result != -EAGAIN && result != -EBUSY)
            check("io_uring_enter", result);
        again = io_uring_sq_ready(&loop->ring) > 0 || io_uring_cq_has_overflow(&loop->ring);
        reap(loop);
    } while (again);
    loop->closing = false;
}

static void turn(struct loop *loop) {
    submit_and_reap(loop);
    settle_sent(loop);
    send_received(loop);
    if (loop->short_of_buffers)
        grow_pool(loop);
    loop->short_of_buffers = false;
    for (unsigned i = 0; i < loop->changed.count; i++)
        proceed(loop, loop->changed.slots[i]);
    loop->changed.count = 0;
}

static void set_up_ring(struct loop *loop) {
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER |
                                              IORING_SETUP_DEFER_TASKRUN |
                                              IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
                                     .cq_entries = COMPLETIONS};
    check("io_uring_setup (Linux 6.1 is needed)",
          io_uring_queue_init_params(SUBMISSIONS, &loop->ring, &params));
    check("io_uring_register_ring_fd", io_uring_register_ring_fd(&loop->ring));
}

// The table of direct descriptors can't be larger than the limit of open files, and a connection
// belongs to each.
static void set_up_connections(struct loop *loop) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        fail("getrlimit", strerror(errno));
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit))
        fail("setrlimit", strerror(errno));
    unsigned count = limit.rlim_cur < MOST_CONNECTIONS ? limit.rlim_cur : MOST_CONNECTIONS;
    check("io_uring_register_files", io_uring_register_files_sparse(&loop->ring, count));
    loop->connections = allocate(count, sizeof *loop->connections);
    loop->received.slots = allocate(count, sizeof(int));
    loop->sent.slots = allocate(count, sizeof(int));
    loop->changed.slots = allocate(count, sizeof(int));
}

static void *map(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_ANONYMOUS | MAP_PRIVATE | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        fail("mmap", strerror(errno));
    return memory;
}

// Addresses for all buffers there may be; there is memory only behind those that were used.
static void set_up_pool(struct loop *loop) {
    loop->memory = map((size_t)MOST_BUFFERS * STRIDE);
    loop->pool = map(MOST_BUFFERS * sizeof(struct io_uring_buf));
    struct io_uring_buf_reg registration = {.ring_addr = (unsigned long)loop->pool,
                                            .ring_entries = MOST_BUFFERS};
    check("io_uring_register_buf_ring", io_uring_register_buf_ring(&loop->ring, &registration, 0));
    io_uring_buf_ring_init(loop->pool);
    grow_pool(loop);
}

static void serve(int listener) {
    struct loop *loop = allocate(1, sizeof *loop);
    loop->listener = listener;
    set_up_ring(loop);
    set_up_connections(loop);
    set_up_pool(loop);
    request_accept(loop);
    for (;;)
        turn(loop);
}

int main(int argc, char **argv) {
    run_on_threads(argc, argv, serve);
}
