/* Sends Ethernet frames exactly as given, from inside the test guest.
 *
 *   rawsend IFACE COUNT INTERVAL_MS PAD HEX [HEX...]
 *
 * Each HEX is one frame; PAD zero bytes are appended to it, so that a jumbo frame need
 * not travel over the serial console. All frames are sent, COUNT times over.
 */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { MAX_FRAME = 65536 };

static size_t from_hex(const char *hex, unsigned char *frame)
{
    size_t length = strlen(hex) / 2;
    for (size_t i = 0; i < length && i < MAX_FRAME; i++) {
        unsigned value;
        if (sscanf(hex + 2 * i, "%2x", &value) != 1) {
            fprintf(stderr, "rawsend: not hexadecimal: %s\n", hex);
            exit(2);
        }
        frame[i] = (unsigned char)value;
    }
    return length;
}

int main(int argc, char **argv)
{
    if (argc < 6) {
        fprintf(stderr, "usage: rawsend IFACE COUNT INTERVAL_MS PAD HEX [HEX...]\n");
        return 2;
    }
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET,
        .sll_ifindex = (int)if_nametoindex(argv[1]),
    };
    int count = atoi(argv[2]);
    int interval = atoi(argv[3]);
    size_t pad = (size_t)atoi(argv[4]);
    struct timespec pause = {interval / 1000, (interval % 1000) * 1000000L};

    /* Protocol 0: this socket only sends. */
    int fd = socket(AF_PACKET, SOCK_RAW, 0);
    if (fd < 0 || address.sll_ifindex == 0) {
        perror("rawsend");
        return 1;
    }
    for (int round = 0; round < count; round++) {
        for (int i = 5; i < argc; i++) {
            unsigned char frame[MAX_FRAME] = {0};
            size_t length = from_hex(argv[i], frame) + pad;
            if (length > MAX_FRAME ||
                sendto(fd, frame, length, 0, (struct sockaddr *)&address, sizeof address) < 0) {
                perror("rawsend: sendto");
                return 1;
            }
        }
        nanosleep(&pause, NULL);
    }
    return 0;
}
