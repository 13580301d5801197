// The least that a server of one file can do: wait, read, write. It reads no request and keeps no log, so nothing that waits for
// its connections by epoll is much faster. `bare PORT FILE`.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SMALL = 32 << 10, CONNECTIONS = 1024 };

static char answer[SMALL + 512], request[8192];
static size_t answer_length;
static int file;
static off_t file_length, sent[CONNECTIONS]; // how much of the file, by connection

// Sends until the connection takes no more. Returns what to wait for; nothing if the client has gone.
static int send_file(int connection) {
    while (sent[connection] < file_length)
        if (sendfile(connection, file, &sent[connection], file_length - sent[connection]) < 0) return errno == EAGAIN ? EPOLLOUT : 0;
    return EPOLLIN;
}

int main(int count, char **arguments) {
    struct stat status;
    signal(SIGPIPE, SIG_IGN);
    if (count != 3 || (file = open(arguments[2], O_RDONLY)) < 0 || fstat(file, &status)) err(2, "bare PORT FILE");
    answer_length = sprintf(answer, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %ld\r\n"
        "date: Sun, 22 Nov 2026 13:00:00 GMT\r\n\r\n", (long)status.st_size);
    if (status.st_size >= SMALL) file_length = status.st_size;
    else answer_length += read(file, answer + answer_length, SMALL);

    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1, poll = epoll_create1(0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(atoi(arguments[1]))};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 512)) err(1, "bind");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(poll, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            int connection = events[i].data.fd, next = EPOLLIN;
            if (connection == listener) {
                connection = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (connection < 0 || connection >= CONNECTIONS) err(1, "accept");
                setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
                event = (struct epoll_event){.events = EPOLLIN, .data.fd = connection};
                epoll_ctl(poll, EPOLL_CTL_ADD, connection, &event);
                continue;
            }
            if (events[i].events & EPOLLOUT) next = send_file(connection);
            else if (recv(connection, request, sizeof request, 0) <= 0) { close(connection); continue; }
            else {
                sent[connection] = 0;
                send(connection, answer, answer_length, MSG_NOSIGNAL | (file_length ? MSG_MORE : 0));
                if (file_length) next = send_file(connection);
            }
            if (!next) close(connection);
            else if (next == EPOLLOUT || events[i].events & EPOLLOUT) {
                event = (struct epoll_event){.events = next, .data.fd = connection};
                epoll_ctl(poll, EPOLL_CTL_MOD, connection, &event);
            }
        }
    }
}
