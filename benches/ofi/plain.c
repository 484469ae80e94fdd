/* Plain libfabric: one-sided writes between two processes, without anything above the provider.
 *
 * plain spin|sleep sent|delivered PROVIDER WRITE_BYTES DEPTH SECONDS MEMORY_BYTES
 *
 * As fi_rma_bw of fabtests has it: DEPTH writes are posted, then the ends of all of them are taken; the
 * other process polls. Who waits spins or sleeps (fi_rma_bw -c spin and -c sread). A write has ended as the
 * provider likes it, when its bytes may be used again, or when they are there (FI_DELIVERY_COMPLETE, which
 * Tranship asks for). Each write goes to the next piece of MEMORY_BYTES on both sides, which is in no cache if that is large. Prints
 * {"gb_per_s": …, "us": …}; us is a write's share of the time.
 */

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_rma.h>

#define CALL(call)                                                                                \
    do {                                                                                          \
        long rc_ = (call);                                                                        \
        if (rc_ < 0) {                                                                            \
            fprintf(stderr, "plain: %s: %s\n", #call, fi_strerror((int)-rc_));                    \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

enum { NAME_BYTES = 256, SLEEP_MS = 10 };

static int sleeps, delivered;

/* What one process tells the other. */
struct card {
    char name[NAME_BYTES];
    size_t name_len;
    uint64_t base, key;
};

struct side {
    struct fi_info *info;
    struct fid_ep *ep;
    struct fid_cq *cq;
    struct fid_av *av;
    struct fid_mr *mr;
    char *memory;
};

static void die(const char *what)
{
    fprintf(stderr, "plain: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct side open_side(const char *provider, size_t bytes)
{
    struct side it = {0};
    struct fi_info *hints = fi_allocinfo();
    if (!hints)
        die("fi_allocinfo");
    hints->caps = FI_MSG | FI_RMA;
    hints->mode = FI_CONTEXT | FI_CONTEXT2;
    hints->ep_attr->type = FI_EP_RDM;
    hints->domain_attr->mr_mode =
        FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
    hints->domain_attr->threading = FI_THREAD_DOMAIN;
    hints->fabric_attr->prov_name = strdup(provider);
    const char *node = strstr(provider, "tcp") ? "127.0.0.1" : NULL;
    CALL(fi_getinfo(FI_VERSION(1, 17), node, NULL, node ? FI_SOURCE : 0, hints, &it.info));
    fi_freeinfo(hints);

    if (delivered)
        it.info->tx_attr->op_flags |= FI_DELIVERY_COMPLETE;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct fi_cq_attr cq = {.size = 4096, .format = FI_CQ_FORMAT_CONTEXT};
    cq.wait_obj = sleeps ? FI_WAIT_UNSPEC : FI_WAIT_NONE;
    struct fi_av_attr av = {.type = it.info->domain_attr->av_type};
    CALL(fi_fabric(it.info->fabric_attr, &fabric, NULL));
    CALL(fi_domain(fabric, it.info, &domain, NULL));
    CALL(fi_cq_open(domain, &cq, &it.cq, NULL));
    CALL(fi_av_open(domain, &av, &it.av, NULL));
    CALL(fi_endpoint(domain, it.info, &it.ep, NULL));
    CALL(fi_ep_bind(it.ep, &it.cq->fid, FI_TRANSMIT | FI_RECV));
    CALL(fi_ep_bind(it.ep, &it.av->fid, 0));
    CALL(fi_enable(it.ep));

    it.memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (it.memory == MAP_FAILED)
        die("mmap");
    madvise(it.memory, bytes, MADV_HUGEPAGE);
    memset(it.memory, 0x5a, bytes);
    CALL(fi_mr_reg(domain, it.memory, bytes, FI_REMOTE_WRITE | FI_WRITE, 0, 1, 0, &it.mr, NULL));
    return it;
}

static struct card card(const struct side *it)
{
    struct card mine = {.name_len = NAME_BYTES, .key = fi_mr_key(it->mr)};
    CALL(fi_getname(&it->ep->fid, mine.name, &mine.name_len));
    if (it->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR)
        mine.base = (uint64_t)it->memory;
    return mine;
}

static void say(int fd, const struct card *it)
{
    if (write(fd, it, sizeof *it) != sizeof *it)
        die("write");
}

static struct card hear(int fd)
{
    struct card it;
    if (read(fd, &it, sizeof it) != sizeof it)
        die("read");
    return it;
}

/* Takes what has ended, waiting for it if need be; how much. */
static long ended(struct fid_cq *cq, int wait)
{
    struct fi_cq_entry entries[64];
    long count = wait && sleeps ? fi_cq_sread(cq, entries, 64, NULL, SLEEP_MS)
                                : fi_cq_read(cq, entries, 64);
    if (count == -FI_EAGAIN)
        return 0;
    if (count < 0) {
        struct fi_cq_err_entry error = {0};
        fi_cq_readerr(cq, &error, 0);
        fprintf(stderr, "plain: a write failed: %s\n", fi_strerror(error.err));
        exit(1);
    }
    return count;
}

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    if (argc != 8) {
        fprintf(stderr, "usage: plain spin|sleep sent|delivered PROVIDER WRITE_BYTES DEPTH SECONDS "
                        "MEMORY_BYTES\n");
        return 2;
    }
    sleeps = strcmp(argv[1], "sleep") == 0;
    delivered = strcmp(argv[2], "delivered") == 0;
    const char *provider = argv[3];
    size_t len = strtoull(argv[4], NULL, 10), bytes = strtoull(argv[7], NULL, 10);
    long depth = strtol(argv[5], NULL, 10);
    double seconds = strtod(argv[6], NULL);
    size_t pieces = len ? bytes / len : 0;
    if (!pieces || depth < 1) {
        fprintf(stderr, "plain: memory for one write at least, and a depth of 1 at least\n");
        return 2;
    }

    int there[2], back[2];
    if (pipe(there) || pipe(back))
        die("pipe");
    pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        struct side it = open_side(provider, bytes);
        struct card mine = card(&it);
        say(back[1], &mine);
        struct card theirs = hear(there[0]);
        fi_addr_t peer;
        if (fi_av_insert(it.av, theirs.name, 1, &peer, 0, NULL) != 1)
            die("fi_av_insert");
        say(back[1], &mine);
        for (;;)
            ended(it.cq, 1);
    }

    struct side it = open_side(provider, bytes);
    struct card theirs = hear(back[0]), mine = card(&it);
    fi_addr_t peer;
    if (fi_av_insert(it.av, theirs.name, 1, &peer, 0, NULL) != 1)
        die("fi_av_insert");
    say(there[1], &mine);
    hear(back[0]);

    void *desc = fi_mr_desc(it.mr);
    struct fi_context2 *contexts = calloc((size_t)depth, sizeof *contexts);
    double begun = 0, took = 0;
    long long writes = 0;
    /* Once through the memory, unmeasured, or for as long as is measured. */
    for (int warm = 1; warm >= 0; warm--) {
        size_t piece = 0;
        begun = now();
        for (writes = 0, took = 0; took < seconds && !(warm && (size_t)writes >= pieces);) {
            long left = depth;
            for (long i = 0; i < depth; i++) {
                size_t at = piece * len;
                piece = (piece + 1) % pieces;
                for (;;) {
                    long rc = fi_write(it.ep, it.memory + at, len, desc, peer, theirs.base + at,
                                       theirs.key, &contexts[i]);
                    if (rc == 0)
                        break;
                    if (rc != -FI_EAGAIN)
                        CALL(rc);
                    left -= ended(it.cq, 0);
                }
            }
            while (left > 0)
                left -= ended(it.cq, 1);
            writes += depth;
            took = now() - begun;
        }
    }
    printf("{\"gb_per_s\": %.6f, \"us\": %.4f}\n", (double)writes * (double)len / took / 1e9,
           took / (double)writes * 1e6);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return 0;
}
