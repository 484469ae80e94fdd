/*
 * The C interface of Tranship: a cache of KV blocks in tiers, and one-sided transport of tensors.
 *
 * Generated from ffi/src; `make header` makes it again. The guide is docs/c.md.
 *
 * Status       Every call answers with a status; tranship_last_error() has the text of what went wrong.
 *
 * Handles      A handle looks like a pointer and is none: never follow it. One that was closed, that is of
 *              another kind or of the process that this one was forked from is noticed, not used. Each kind
 *              is opened and closed by one pair of functions; a handle that is given out is NULL when the call
 *              fails. All calls may be made from any thread, and a handle may be closed while another thread
 *              uses it: that call goes on.
 *
 * Pointers     Are aligned, and good for what the call does with them, for as long as it takes; where more is
 *              asked, the function says so. An answer goes to a pointer that is not NULL unless the function
 *              says that it may be.
 *
 * Structs      That begin with `size` begin with TRANSHIP_INIT(their type). Fields that are 0 are "as usual", so
 *              that a program that was compiled for an older library runs with a newer one.
 *
 * Times        Are in microseconds, and at most a day. A wait of 0 does not wait.
 *
 * Texts and    Go to `buffer`, of `capacity` bytes, and their length to `len`, which may be NULL: texts end with
 * bytes        a NUL that does not count. A `buffer` of NULL asks for the length alone. TRANSHIP_TOO_SMALL leaves
 *              the buffer alone, and tells the length too.
 *
 * No callbacks Nothing of the caller's is ever called. What is submitted carries `user_data`; its end is drained
 *              from a queue and announced by an event descriptor.
 */


#ifndef TRANSHIP_H
#define TRANSHIP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
template <typename T>
inline T tranship_init() {
  T all{};
  all.size = sizeof(T);
  return all;
}
#define TRANSHIP_INIT(type) (tranship_init<type>())
#else
/* A value of a struct that begins with its size: all else is "as usual". */
#define TRANSHIP_INIT(type) ((type){.size = sizeof(type)})
#endif

/// The version of this interface. It grows with every addition; what is there stays as it is.
#define TRANSHIP_ABI_VERSION 1

/// Wait by spinning for a while, then sleep.
#define TRANSHIP_POLLING_ADAPTIVE 0

/// Never sleep: the lowest latency, for a whole core.
#define TRANSHIP_POLLING_BUSY 1

/// A thread of the engine's moves on what nobody waits for.
#define TRANSHIP_DRIVE_THREAD 0

/// Only calls that wait, and tranship_engine_progress(), move anything on.
#define TRANSHIP_DRIVE_CALLER 1

/// Wish for 2 MiB pages; never fails for want of them.
#define TRANSHIP_ALLOC_HUGE 1

/// Fill in all pages now.
#define TRANSHIP_ALLOC_PREFAULT 2

/// Lock the pages into memory.
#define TRANSHIP_ALLOC_LOCK 4

/// Allow more bytes than there is memory, for memory of which only parts are touched.
#define TRANSHIP_ALLOC_SPARSE 8

/// Place the pages on `numa_node`.
#define TRANSHIP_ALLOC_NUMA 16

/// Memory of this host.
#define TRANSHIP_MEMORY_HOST 0

/// Memory of a CUDA device.
#define TRANSHIP_MEMORY_CUDA 1

/// Memory of a ROCm device.
#define TRANSHIP_MEMORY_ROCM 2

/// Peers may write.
#define TRANSHIP_ACCESS_WRITE 1

/// Peers may read.
#define TRANSHIP_ACCESS_READ 2

/// A transfer has ended.
#define TRANSHIP_COMPLETION_TRANSFER 0

/// A watched word has changed.
#define TRANSHIP_COMPLETION_WATCH 1

/// All bytes are where they belong and visible there.
#define TRANSHIP_OUTCOME_DONE 0

/// No byte moved and none will.
#define TRANSHIP_OUTCOME_REJECTED 1

/// It was stopped. Some bytes may have moved, no more can.
#define TRANSHIP_OUTCOME_FENCED 2

/// It cannot be proven that no more bytes will move: leave its pages alone.
#define TRANSHIP_OUTCOME_LOST 3

/// No reason: it arrived.
#define TRANSHIP_REASON_NONE 0

/// The deadline came.
#define TRANSHIP_REASON_DEADLINE 1

/// The caller cancelled it.
#define TRANSHIP_REASON_CANCELLED 2

/// The peer could not be reached.
#define TRANSHIP_REASON_UNREACHABLE 3

/// The peer died or the connection broke.
#define TRANSHIP_REASON_PEER_GONE 4

/// The window was revoked, or belongs to an earlier generation.
#define TRANSHIP_REASON_STALE 5

/// The key does not open the window.
#define TRANSHIP_REASON_FORGED 6

/// Outside the window.
#define TRANSHIP_REASON_OUT_OF_BOUNDS 7

/// The window does not grant this operation.
#define TRANSHIP_REASON_DENIED 8

/// The peer speaks another version of the protocol.
#define TRANSHIP_REASON_VERSION 9

/// The message is longer than the fabric carries.
#define TRANSHIP_REASON_TOO_LONG 10

/// Too many transfers wait.
#define TRANSHIP_REASON_FULL 11

/// The fabric cannot do this operation, or not with this memory.
#define TRANSHIP_REASON_UNSUPPORTED 12

/// The region or the engine is closing or closed.
#define TRANSHIP_REASON_CLOSED 13

/// The fabric failed; its log says how.
#define TRANSHIP_REASON_FAILED 14

/// Pieces of the destination overlap.
#define TRANSHIP_REASON_OVERLAPPING 15

/// The two sides are not equally long.
#define TRANSHIP_REASON_UNEVEN 16

/// The peer asks for another token.
#define TRANSHIP_REASON_UNAUTHORISED 17

/// What answers there is no engine.
#define TRANSHIP_REASON_FOREIGN 18

/// The peer's name has no address.
#define TRANSHIP_REASON_UNRESOLVED 19

/// A region or an opened window of another engine of this process.
#define TRANSHIP_REASON_OTHER_ENGINE 20

/// Too many earlier writes to the peer were lost and may still be landing there.
#define TRANSHIP_REASON_UNPROVEN 21

/// For throughput.
#define TRANSHIP_LANE_BULK 0

/// Ahead of everything in bulk.
#define TRANSHIP_LANE_LATENCY 1

/// Where nothing else is said.
#define TRANSHIP_PRIORITY_NORMAL 0

/// What somebody waits for now.
#define TRANSHIP_PRIORITY_HIGH 1

/// What may be needed later.
#define TRANSHIP_PRIORITY_LOW 2

/// Deliver `slot` to the peer once the payload is visible there.
#define TRANSHIP_SUBMIT_IMMEDIATE 1

/// A message.
#define TRANSHIP_INCOMING_MESSAGE 0

/// A connection is up.
#define TRANSHIP_INCOMING_CONNECTED 1

/// A connection is gone. All messages that came over it were delivered before.
#define TRANSHIP_INCOMING_DISCONNECTED 2

/// Nowhere.
#define TRANSHIP_PRESENCE_ABSENT 0

/// Somebody is filling it.
#define TRANSHIP_PRESENCE_IN_FLIGHT 1

/// In the daemon's memory.
#define TRANSHIP_PRESENCE_DRAM 2

/// On a local device.
#define TRANSHIP_PRESENCE_NVME 3

/// In a bucket.
#define TRANSHIP_PRESENCE_OBJECT 4

/// The link has a parent.
#define TRANSHIP_LINK_PARENT 1

/// The block is readable.
#define TRANSHIP_STORE_STORED 0

/// It was there already.
#define TRANSHIP_STORE_EXISTS 1

/// Somebody else is storing it.
#define TRANSHIP_STORE_IN_FLIGHT 2

/// It was not taken; tranship_last_reason() says why.
#define TRANSHIP_STORE_REFUSED 3

/// Readable, or loaded and checked.
#define TRANSHIP_BLOCK_READY 0

/// Being filled, or on its way up from a tier below: a miss for now.
#define TRANSHIP_BLOCK_LATE 1

/// Not there.
#define TRANSHIP_BLOCK_GONE 2

/// Its bytes did not match their checksum, and it was dropped. The memory must not be used.
#define TRANSHIP_BLOCK_CORRUPT 3

/// Of another length than the memory for it, or it could not be brought here. The memory must not be used.
#define TRANSHIP_BLOCK_FAILED 4

/// From now on: `from` of tranship_events_open().
#define TRANSHIP_EVENTS_NOW UINT64_MAX

/// Events `sequence` to `sequence_last` were missed.
#define TRANSHIP_EVENT_GAP 0

/// A block became readable in a tier.
#define TRANSHIP_EVENT_STORED 1

/// A block left a tier.
#define TRANSHIP_EVENT_REMOVED 2

/// All blocks of the identity are gone.
#define TRANSHIP_EVENT_CLEARED 3

/// How a call went. The text of what went wrong is in tranship_last_error().
enum tranship_status_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /// Well.
  TRANSHIP_OK = 0,
  /// An argument is NULL, out of range, misaligned, or no text in UTF-8.
  TRANSHIP_INVALID = 1,
  /// What was given is no handle, or one of another kind.
  TRANSHIP_BAD_HANDLE = 2,
  /// The handle was closed before, or is being closed.
  TRANSHIP_CLOSED = 3,
  /// The handle is of the process that this one was forked from. Open another; there is nothing to
  /// close here.
  TRANSHIP_FORKED = 4,
  /// The other side, or the caller, was made for another version.
  TRANSHIP_VERSION = 5,
  /// This machine, this fabric or this release cannot do it.
  TRANSHIP_UNSUPPORTED = 6,
  /// The buffer is too small; nothing was lost, and the length needed was told.
  TRANSHIP_TOO_SMALL = 7,
  /// It did not happen in time.
  TRANSHIP_TIMEOUT = 8,
  /// A limit is reached; try again when something has ended or was closed.
  TRANSHIP_FULL = 9,
  /// Nobody answers there.
  TRANSHIP_UNREACHABLE = 10,
  /// The other side went away during the call; the next call connects again.
  TRANSHIP_DISCONNECTED = 11,
  /// The other side refused.
  TRANSHIP_REFUSED = 12,
  /// The token or secret is wrong, or the right is not granted.
  TRANSHIP_DENIED = 13,
  /// The transfer ended, and no byte of it moved.
  TRANSHIP_REJECTED = 14,
  /// The transfer was stopped: some bytes may have moved, no more will.
  TRANSHIP_FENCED = 15,
  /// The transfer ended without proof that no more bytes will move: leave its pages alone.
  TRANSHIP_LOST = 16,
  /// It could not be proven in time that no byte moves any more. The handle stays open: leave its
  /// memory alone and close it again.
  TRANSHIP_NOT_FENCED = 17,
  /// Not there, or not there yet: a miss.
  TRANSHIP_NOT_READY = 18,
  /// The bytes do not match their checksum: a miss. The buffer must not be used.
  TRANSHIP_CORRUPT = 19,
  /// No memory, or not of that kind.
  TRANSHIP_NO_MEMORY = 20,
  /// The system refused a descriptor or a thread.
  TRANSHIP_SYSTEM = 21,
  /// Another thread is in a call on this handle that takes it alone.
  TRANSHIP_BUSY = 22,
  /// A defect of the library; please report it with its text.
  TRANSHIP_INTERNAL = 23,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum tranship_status_t tranship_status_t;
#else
typedef int32_t tranship_status_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/// A meeting of engines: nobody goes on before everybody has come.
typedef struct tranship_barrier_t tranship_barrier_t;

/// The blocks of one identity, as one client sees them.
typedef struct tranship_cache_t tranship_cache_t;

/// A connection to a daemon. When the daemon goes away, calls fail with TRANSHIP_DISCONNECTED and the next
/// one connects again. All calls may be made from any thread.
typedef struct tranship_client_t tranship_client_t;

/// Counts the immediates that carry its slot, from when it is opened. Late ones of an earlier owner of the
/// slot never count.
typedef struct tranship_counter_t tranship_counter_t;

/// Moves bytes between memories of this process and of its peers. All calls may be made from any
/// thread.
typedef struct tranship_engine_t tranship_engine_t;

/// What happens to the blocks of the client's tenant, as it does. A client has one at a time: a new one
/// replaces the old.
typedef struct tranship_events_t tranship_events_t;

/// Threads that load and store blocks, and the jobs they have.
typedef struct tranship_jobs_t tranship_jobs_t;

/// Blocks kept in place for reading, until it is closed or its time is over.
typedef struct tranship_lease_t tranship_lease_t;

/// Pieces of one side of a transfer, in the order in which their bytes travel. Offsets count from the
/// start of the region or window that they are used with.
typedef struct tranship_pages_t tranship_pages_t;

/// Which pieces of this side pair with which of the peer's: made once, used as often as wanted.
typedef struct tranship_plan_t tranship_plan_t;

/// Where the ends of an engine's transfers are put, with the `user_data` they were submitted with.
typedef struct tranship_queue_t tranship_queue_t;

/// Memory registered with every fabric of an engine.
typedef struct tranship_region_t tranship_region_t;

/// A window of a peer, as an engine of this process uses it.
typedef struct tranship_remote_t tranship_remote_t;

/// The right to fill one block, which nobody can read before it is committed.
typedef struct tranship_room_t tranship_room_t;

/// A transfer under way, for those who want to cancel it or to ask for it alone.
typedef struct tranship_transfer_t tranship_transfer_t;

/// Watches a 64-bit word of a region, that peers, other processes or devices bump.
typedef struct tranship_watcher_t tranship_watcher_t;

/// The right for peers to use a part of a region, until it is revoked.
typedef struct tranship_window_t tranship_window_t;

/// How an engine is built. 0 and NULL are "as usual".
typedef struct {
  /// TRANSHIP_INIT sets it.
  size_t size;
  /// "shm", "tcp" or "shm,tcp": the best first; "shm" as usual.
  const char *fabrics;
  /// The socket file that shm listens at; as usual an abstract name of its own.
  const char *shm_path;
  /// HOST:PORT that tcp listens at, port 0 for any; as usual "127.0.0.1:0".
  const char *tcp_listen;
  /// HOST:PORT that peers are told to dial; needed when tcp listens on all addresses.
  const char *tcp_advertise;
  /// The secret that both sides of a tcp connection prove to know; as usual none.
  const char *tcp_secret;
  /// The time that transfers have when they name none; as usual 5 s.
  uint64_t deadline_us;
  /// How often watched words are looked at; as usual every 50 µs.
  uint64_t watch_every_us;
  /// How many counters there can be, at most 65535; as usual 4096.
  uint32_t counters;
  /// TRANSHIP_POLLING_*.
  uint32_t polling;
  /// TRANSHIP_DRIVE_*.
  uint32_t drive;
  /// Must be 0.
  uint32_t reserved;
} tranship_engine_options_t;

/// What an engine has counted since it was opened. Whenever no transfer is under way, `submitted` is the
/// sum of `done`, `rejected`, `fenced` and `lost`.
typedef struct {
  /// TRANSHIP_INIT sets it.
  size_t size;
  /// Transfers taken on.
  uint64_t submitted;
  /// Transfers that ended well.
  uint64_t done;
  /// Transfers of which no byte moved.
  uint64_t rejected;
  /// Transfers that were stopped.
  uint64_t fenced;
  /// Transfers that ended without proof.
  uint64_t lost;
  /// Of the lost, those since proven ended.
  uint64_t recovered;
  /// Bytes of writes that ended well.
  uint64_t written_bytes;
  /// Bytes of reads that ended well.
  uint64_t read_bytes;
  /// Messages sent.
  uint64_t messages_sent;
  /// Messages received.
  uint64_t messages_received;
  /// Immediates that counted for someone.
  uint64_t immediates;
  /// Immediates for a slot that nobody owns any more.
  uint64_t stray_immediates;
  /// Transfers that had to wait for a connection or for room.
  uint64_t parked;
  /// Connections that came up.
  uint64_t connections;
  /// Connections that went down.
  uint64_t disconnections;
  /// Windows fenced.
  uint64_t windows_fenced;
  /// Windows reached over a slower fabric because the faster one did not lead there.
  uint64_t fallbacks;
} tranship_engine_stats_t;

/// Another engine, as one of this process knows it. A value: nothing needs to be closed. One that was
/// dialled reconnects with the next transfer after it went down.
typedef struct {
  /// Of no meaning to the caller.
  uint64_t bits[2];
} tranship_peer_t;

/// How memory is allocated. 0 and NULL are "as usual".
typedef struct {
  /// TRANSHIP_INIT sets it.
  size_t size;
  /// Names the memory in errors and in /proc/PID/maps.
  const char *name;
  /// TRANSHIP_ALLOC_*, or-ed.
  uint32_t flags;
  /// With TRANSHIP_ALLOC_NUMA.
  uint32_t numa_node;
} tranship_alloc_options_t;

/// What is registered. 0 is "as usual".
typedef struct {
  /// TRANSHIP_INIT sets it.
  size_t size;
  /// TRANSHIP_MEMORY_*. This release registers memory of the host; any other kind is
  /// TRANSHIP_UNSUPPORTED.
  uint32_t kind;
  /// Which device, for memory of one.
  uint32_t device;
} tranship_register_options_t;

/// Pieces of one length at one distance.
typedef struct {
  /// Where the first piece starts, bytes.
  uint64_t offset;
  /// How long a piece is, bytes.
  uint64_t bytes;
  /// From the start of a piece to the start of the next, bytes.
  uint64_t stride;
  /// How many pieces.
  uint32_t count;
  /// Must be 0.
  uint32_t reserved;
} tranship_run_t;

/// A piece.
typedef struct {
  /// Where it starts, bytes.
  uint64_t offset;
  /// How long it is, bytes.
  uint64_t len;
} tranship_range_t;

/// Something that happened.
typedef struct {
  /// As given to the submission, or to tranship_watcher_notify().
  uint64_t user_data;
  /// Of a watched word: what it is now. Changes between two looks are one.
  uint64_t value;
  /// TRANSHIP_COMPLETION_*.
  uint32_t kind;
  /// Of a transfer: TRANSHIP_OUTCOME_*.
  uint32_t outcome;
  /// Why it did not arrive: TRANSHIP_REASON_*, which tranship_reason_text() puts into words.
  uint32_t reason;
  /// 1 when the pages on this side may be used for something else. 0 after TRANSHIP_OUTCOME_LOST: ask
  /// tranship_transfer_fenced(), or close the region, which waits for the proof.
  uint32_t pages_free;
} tranship_completion_t;

/// How a transfer is submitted. 0 and NULL are "as usual".
///
/// Its end is put into `queue` with `user_data`, or asked of the transfer that the call gives out. With
/// neither, the call waits for the end: TRANSHIP_OK says that all bytes have arrived, TRANSHIP_REJECTED,
/// TRANSHIP_FENCED or TRANSHIP_LOST that they have not.
typedef struct {
  /// TRANSHIP_INIT sets it.
  size_t size;
  /// Where its end is put; NULL for none.
  tranship_queue_t *queue;
  /// Comes back with its end.
  uint64_t user_data;
  /// How long it may take; as usual what the engine was opened with.
  uint64_t deadline_us;
  /// TRANSHIP_LANE_*.
  uint32_t lane;
  /// TRANSHIP_PRIORITY_*: what it goes ahead of in the bulk lane.
  uint32_t priority;
  /// TRANSHIP_SUBMIT_*, or-ed.
  uint32_t flags;
  /// With TRANSHIP_SUBMIT_IMMEDIATE: the peer's, of tranship_counter_slot().
  uint32_t slot;
} tranship_submit_options_t;

/// One peer's part of a scatter.
typedef struct {
  /// Where its part goes.
  tranship_remote_t *remote;
  /// At which byte of the window.
  uint64_t remote_offset;
  /// Where its part starts in the source.
  uint64_t local_offset;
  /// How long it is, bytes.
  uint64_t len;
  /// Comes back with its end, in place of that of the options.
  uint64_t user_data;
  /// TRANSHIP_SUBMIT_IMMEDIATE, or 0.
  uint32_t flags;
  /// With TRANSHIP_SUBMIT_IMMEDIATE.
  uint32_t slot;
} tranship_target_t;

/// What came in.
typedef struct {
  /// From whom; answers go there.
  tranship_peer_t from;
  /// Of a message: its length, bytes.
  uint64_t len;
  /// TRANSHIP_INCOMING_*.
  uint32_t kind;
  /// Why a connection is gone: TRANSHIP_REASON_*.
  uint32_t reason;
} tranship_incoming_t;

/// Which daemon, and as whom. 0 and NULL are "as usual".
typedef struct {
  /// TRANSHIP_INIT sets it.
  size_t size;
  /// "unix:///PATH", or "tcp://HOST:PORT", "verbs://HOST:PORT", "ofi://HOST:PORT"; as usual TRANSHIP_ADDRESS
  /// of the environment, else this user's socket.
  const char *address;
  /// Whose blocks; as usual "default".
  const char *tenant;
  /// The tenant's token; as usual none.
  const char *tenant_token;
  /// The secret of the tcp fabric; as usual TRANSHIP_TOKEN of the environment, if that is set.
  const char *secret;
  /// What the client calls itself in the daemon's logs; as usual its process.
  const char *name;
  /// How long a call may take, beyond what it is asked to wait; as usual 5 s.
  uint64_t timeout_us;
} tranship_client_options_t;

/// Everything that must agree before the bytes of one KV cache may stand in for those of another. The tenant
/// is that of the client. 0 is 1 for what counts things, and 0 for a rank.
typedef struct {
  /// TRANSHIP_INIT sets it.
  size_t size;
  /// Model name. Must be given.
  const char *model;
  /// Revision of the weights, as exact as the engine knows it.
  const char *revision;
  /// Element type of the KV ("bf16", "fp8_e4m3", ...). Must be given.
  const char *dtype;
  /// Order of the dimensions inside a block; as usual "nhd".
  const char *layout;
  /// Secret or label that keeps caches apart on purpose.
  const char *salt;
  /// Layers held by this shard.
  uint32_t layers;
  /// KV heads held by this shard.
  uint32_t kv_heads;
  /// Elements of one head of one token.
  uint32_t head_dim;
  /// Tensor-parallel shards.
  uint32_t tp_size;
  /// Which one this is, from 0.
  uint32_t tp_rank;
  /// Pipeline stages.
  uint32_t pp_size;
  /// Which one this is, from 0.
  uint32_t pp_rank;
  /// Tokens in a full block.
  uint32_t block_tokens;
} tranship_identity_t;

/// Names a block by its content: what its tokens, and all the tokens before it, are.
typedef struct {
  /// A good hash: nothing else tells two blocks apart.
  uint8_t bytes[16];
} tranship_key_t;

/// A key with its place in the chain of prefixes. {.key = key} alone stands alone.
typedef struct {
  /// The block itself.
  tranship_key_t key;
  /// The block right before it, with TRANSHIP_LINK_PARENT.
  tranship_key_t parent;
  /// Blocks before this one in its sequence.
  uint32_t position;
  /// TRANSHIP_LINK_*, or-ed.
  uint32_t flags;
} tranship_link_t;

/// Bytes of the caller's.
typedef struct {
  /// The first.
  void *data;
  /// How many.
  size_t len;
} tranship_span_t;

/// The memory of one block: spans in the order of its bytes, such as its page in each layer of a KV cache.
typedef struct {
  /// The spans.
  const tranship_span_t *spans;
  /// How many.
  size_t count;
} tranship_spans_t;

/// What a lease says of one block.
typedef struct {
  /// How long it is, bytes, when it is readable.
  uint64_t len;
  /// TRANSHIP_BLOCK_*.
  uint32_t result;
  /// 0.
  uint32_t reserved;
} tranship_leased_t;

/// The answer to one block that room was asked for.
typedef struct {
  /// Fill it and commit it, or close it; NULL unless `result` is TRANSHIP_STORE_STORED.
  tranship_room_t *room;
  /// TRANSHIP_STORE_STORED when there is room, else TRANSHIP_STORE_EXISTS, _IN_FLIGHT or _REFUSED, for which
  /// tranship_last_reason() says why.
  uint32_t result;
  /// When to try again, milliseconds; 0 when that cannot help.
  uint32_t retry_ms;
} tranship_grant_t;

/// A job that has ended.
typedef struct {
  /// As given to the submission.
  uint64_t user_data;
  /// Bytes of the blocks that were loaded or stored.
  uint64_t bytes;
  /// From submission to end, nanoseconds.
  uint64_t elapsed_ns;
  /// TRANSHIP_OK when the results of its blocks have been put where the submission said; else nothing of a
  /// load is to be used, and nothing of a store is there for sure. tranship_last_reason() says why.
  tranship_status_t status;
  /// 0.
  uint32_t reserved;
} tranship_done_t;

/// Something that happened.
typedef struct {
  /// Its number.
  uint64_t sequence;
  /// Of a gap: the last number that was missed; else `sequence`.
  uint64_t sequence_last;
  /// Of a stored block: its length, bytes.
  uint64_t len;
  /// Which identity; see tranship_identity_id().
  uint8_t identity[16];
  /// The block.
  tranship_key_t key;
  /// The block before it, if `has_parent`.
  tranship_key_t parent;
  /// TRANSHIP_EVENT_*.
  uint32_t kind;
  /// Of a stored block: blocks before it in its sequence.
  uint32_t position;
  /// 1 if there is a parent.
  uint32_t has_parent;
  /// TRANSHIP_PRESENCE_DRAM, _NVME or _OBJECT.
  uint32_t tier;
} tranship_event_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/// The version of the interface that the library has.
uint32_t tranship_abi_version(void);

/// The release the library is of, such as "0.1.0".
const char *tranship_release(void);

/// Asks that the library have the interface that the caller was compiled for: call it once, with
/// TRANSHIP_ABI_VERSION. TRANSHIP_VERSION when the library is older.
tranship_status_t tranship_require(uint32_t version);

/// How many handles of this process are open, of all kinds: 0 when everything was closed.
tranship_status_t tranship_open_handles(size_t *count);

/// What went wrong in the last call on this thread that failed, and what to do: one line. Never
/// NULL; empty when none failed. Good until the next call that fails on this thread.
const char *tranship_last_error(void);

/// Opens an engine. `options` may be NULL.
tranship_status_t tranship_engine_open(const tranship_engine_options_t *options,
                                       tranship_engine_t **engine);

/// Ends the engine: refuses new work, ends what is in flight, revokes its windows, and returns once no
/// transfer can touch its memory. The handle is closed in any case; those of its regions, windows, queues
/// and so on are closed one by one. TRANSHIP_NOT_FENCED: not proven within `timeout_us`; memory that
/// could not be fenced stays mapped, and what was registered must stay valid, for the rest of the
/// process.
tranship_status_t tranship_engine_close(tranship_engine_t *engine,
                                        uint64_t timeout_us);

/// Which engine this is, 16 bytes: new at every start.
tranship_status_t tranship_engine_id(tranship_engine_t *engine, uint8_t (*id)[16]);

/// Where peers reach it: the `index`-th address, one a fabric, the best first. TRANSHIP_NOT_READY
/// when there are no more. For `buffer`, `capacity` and `len` see "Texts and bytes" above.
tranship_status_t tranship_engine_address(tranship_engine_t *engine,
                                          size_t index,
                                          char *buffer,
                                          size_t capacity,
                                          size_t *len);

/// The longest message that every fabric of the engine carries, bytes.
tranship_status_t tranship_engine_message_bytes_max(tranship_engine_t *engine, size_t *bytes);

/// What it has counted; `stats` begins with TRANSHIP_INIT(tranship_engine_stats_t).
tranship_status_t tranship_engine_stats(tranship_engine_t *engine, tranship_engine_stats_t *stats);

/// Does a bounded amount of work without waiting; `worked`, which may be NULL, is 1 if there was any.
/// Needed only with TRANSHIP_DRIVE_CALLER.
tranship_status_t tranship_engine_progress(tranship_engine_t *engine,
                                           uint32_t *worked);

/// Names a peer by its address ("shm:/PATH", "tcp:HOST:PORT"), without dialling: the first transfer does.
tranship_status_t tranship_peer_at(tranship_engine_t *engine,
                                   const char *at,
                                   tranship_peer_t *peer);

/// Dials a peer and waits until it answers.
tranship_status_t tranship_peer_connect(tranship_engine_t *engine,
                                        const char *at,
                                        uint64_t timeout_us,
                                        tranship_peer_t *peer);

/// Hangs up. Transfers in flight to the peer end.
tranship_status_t tranship_peer_disconnect(tranship_engine_t *engine, tranship_peer_t peer);

/// Allocates `len` bytes that peers of this host can map, and registers them. `options` may be NULL.
tranship_status_t tranship_region_alloc(tranship_engine_t *engine,
                                        size_t len,
                                        const tranship_alloc_options_t *options,
                                        tranship_region_t **region);

/// Registers memory of the caller's, which must stay valid until the region was closed with success. Over
/// shm peers cannot reach such memory, but it can be the near side of any transfer; over tcp they can.
/// `options` may be NULL.
tranship_status_t tranship_region_register(tranship_engine_t *engine,
                                           void *data,
                                           size_t len,
                                           const tranship_register_options_t *options,
                                           tranship_region_t **region);

/// Where its bytes are, until the region is closed, and how many. Either may be NULL.
tranship_status_t tranship_region_data(tranship_region_t *region, void **data, size_t *len);

/// What its pages are, and why they are less than what was wished for: one line.
tranship_status_t tranship_region_backing(tranship_region_t *region,
                                          char *buffer,
                                          size_t capacity,
                                          size_t *len);

/// Takes the region out of use: refuses new transfers, ends those in flight, revokes its windows, and
/// returns once no transfer can touch its memory, which is unmapped or the caller's again.
/// TRANSHIP_NOT_FENCED: not proven within `timeout_us`; the handle stays open, close it again.
tranship_status_t tranship_region_close(tranship_region_t *region,
                                        uint64_t timeout_us);

/// Opens `len` bytes at `offset` of a region to peers: TRANSHIP_ACCESS_*, or-ed.
tranship_status_t tranship_window_open(tranship_region_t *region,
                                       uint64_t offset,
                                       uint64_t len,
                                       uint32_t access,
                                       tranship_window_t **window);

/// What a peer needs to use the window: bytes (a JSON text) to be handed over by any channel. Whoever has
/// them may use the window until it is revoked.
tranship_status_t tranship_window_descriptor(tranship_window_t *window,
                                             uint8_t *buffer,
                                             size_t capacity,
                                             size_t *len);

/// Takes the right back and waits until no late write can land: the pages may be used for something else
/// then, and the handle is closed. TRANSHIP_NOT_FENCED: not proven within `timeout_us`; no new write can
/// begin, the handle stays open, revoke it again.
tranship_status_t tranship_window_revoke(tranship_window_t *window,
                                         uint64_t timeout_us);

/// Makes the window that a descriptor is of usable here; connects with the first transfer.
tranship_status_t tranship_remote_open(tranship_engine_t *engine,
                                       const uint8_t *descriptor,
                                       size_t descriptor_len,
                                       tranship_remote_t **remote);

/// How long it is, bytes.
tranship_status_t tranship_remote_len(tranship_remote_t *remote, uint64_t *len);

/// The address that its transfers go to now: another than before when the best way did not lead there.
tranship_status_t tranship_remote_address(tranship_remote_t *remote,
                                          char *buffer,
                                          size_t capacity,
                                          size_t *len);

/// Closes the handle. Transfers under way go on.
tranship_status_t tranship_remote_close(tranship_remote_t *remote);

/// Runs as they are: strided pages.
tranship_status_t tranship_pages_runs(const tranship_run_t *runs,
                                      size_t count,
                                      tranship_pages_t **pages);

/// The pages of a page table: page `i` starts at `i` times `bytes`.
tranship_status_t tranship_pages_table(uint64_t bytes,
                                       const uint64_t *indices,
                                       size_t count,
                                       tranship_pages_t **pages);

/// Any pieces, of any lengths.
tranship_status_t tranship_pages_ranges(const tranship_range_t *ranges,
                                        size_t count,
                                        tranship_pages_t **pages);

/// The same pieces once for every layer, each time counted from where the layer starts.
tranship_status_t tranship_pages_layers(tranship_pages_t *layer,
                                        const uint64_t *starts,
                                        size_t count,
                                        tranship_pages_t **pages);

/// The bytes of all pieces together, and where the furthest ends. Either may be NULL.
tranship_status_t tranship_pages_extent(tranship_pages_t *pages, uint64_t *bytes, uint64_t *end);

/// Closes the handle; plans made of it stay.
tranship_status_t tranship_pages_close(tranship_pages_t *pages);

/// Pairs the pages of this side with those of the peer's. Both must have as many bytes.
tranship_status_t tranship_plan_open(tranship_pages_t *local,
                                     tranship_pages_t *remote,
                                     tranship_plan_t **plan);

/// Closes the handle. Transfers under way go on.
tranship_status_t tranship_plan_close(tranship_plan_t *plan);

/// Opens a queue for transfers of an engine.
tranship_status_t tranship_queue_open(tranship_engine_t *engine, tranship_queue_t **queue);

/// The event descriptor that is readable while there is something to drain: for poll(2) and epoll(7). It
/// belongs to the queue: do not read or close it.
tranship_status_t tranship_queue_fd(tranship_queue_t *queue,
                                    int32_t *fd);

/// Takes up to `max` of what happened, in the order in which it did; `count` is how many, 0 for none.
tranship_status_t tranship_queue_drain(tranship_queue_t *queue,
                                       tranship_completion_t *completions,
                                       size_t max,
                                       size_t *count);

/// As tranship_queue_drain(), but waits until there is something, moving the engine on. TRANSHIP_TIMEOUT when
/// nothing happened within `timeout_us`.
tranship_status_t tranship_queue_wait(tranship_queue_t *queue,
                                      tranship_completion_t *completions,
                                      size_t max,
                                      uint64_t timeout_us,
                                      size_t *count);

/// Closes the queue. Transfers under way go on, and nobody learns from it how they end.
tranship_status_t tranship_queue_close(tranship_queue_t *queue);

/// A reason in words, such as "the peer is gone"; "none" for 0. Never NULL.
const char *tranship_reason_text(uint32_t reason);

/// How the transfer ended, if it has: else TRANSHIP_NOT_READY.
tranship_status_t tranship_transfer_poll(tranship_transfer_t *transfer, tranship_completion_t *end);

/// Waits for its end, which comes by its deadline, moving the engine on.
tranship_status_t tranship_transfer_wait(tranship_transfer_t *transfer, tranship_completion_t *end);

/// As tranship_transfer_wait(), but no longer than `timeout_us`: TRANSHIP_TIMEOUT when it has not ended by then.
tranship_status_t tranship_transfer_wait_for(tranship_transfer_t *transfer,
                                             uint64_t timeout_us,
                                             tranship_completion_t *end);

/// Asks that it end now. It has not ended when this returns.
tranship_status_t tranship_transfer_cancel(tranship_transfer_t *transfer);

/// Whether the pages on this side may be used for something else: at once for every outcome but
/// TRANSHIP_OUTCOME_LOST, and for that from when it is proven that nothing moves any more.
tranship_status_t tranship_transfer_fenced(tranship_transfer_t *transfer, uint32_t *fenced);

/// Closes the handle. The transfer goes on.
tranship_status_t tranship_transfer_close(tranship_transfer_t *transfer);

/// Puts `len` bytes at `local_offset` of a region into a peer's window at `remote_offset`. `options` may
/// be NULL; so may `transfer`.
tranship_status_t tranship_write(tranship_engine_t *engine,
                                 tranship_region_t *region,
                                 uint64_t local_offset,
                                 tranship_remote_t *remote,
                                 uint64_t remote_offset,
                                 uint64_t len,
                                 const tranship_submit_options_t *options,
                                 tranship_transfer_t **transfer);

/// Gets `len` bytes at `remote_offset` of a peer's window into a region at `local_offset`. `options` may be
/// NULL; so may `transfer`.
tranship_status_t tranship_read(tranship_engine_t *engine,
                                tranship_remote_t *remote,
                                uint64_t remote_offset,
                                tranship_region_t *region,
                                uint64_t local_offset,
                                uint64_t len,
                                const tranship_submit_options_t *options,
                                tranship_transfer_t **transfer);

/// Puts pieces of a region into pieces of a peer's window, as a plan says. An immediate comes once, after
/// all of them. `options` may be NULL; so may `transfer`.
tranship_status_t tranship_write_paged(tranship_engine_t *engine,
                                       tranship_region_t *region,
                                       tranship_remote_t *remote,
                                       tranship_plan_t *plan,
                                       const tranship_submit_options_t *options,
                                       tranship_transfer_t **transfer);

/// Gets pieces of a peer's window into pieces of a region, as a plan says. `options` may be NULL; so may
/// `transfer`.
tranship_status_t tranship_read_paged(tranship_engine_t *engine,
                                      tranship_remote_t *remote,
                                      tranship_region_t *region,
                                      tranship_plan_t *plan,
                                      const tranship_submit_options_t *options,
                                      tranship_transfer_t **transfer);

/// Delivers an immediate to a peer, without payload: the slot of one of its counters. `options` may be NULL;
/// so may `transfer`.
tranship_status_t tranship_signal(tranship_engine_t *engine,
                                  tranship_peer_t to,
                                  uint32_t slot,
                                  const tranship_submit_options_t *options,
                                  tranship_transfer_t **transfer);

/// Sends a message of at most tranship_engine_message_bytes_max() bytes, which are copied. It ends well when
/// it is on its way in order, not when the peer has read it. `options` may be NULL; so may `transfer`.
tranship_status_t tranship_send(tranship_engine_t *engine,
                                tranship_peer_t to,
                                const uint8_t *bytes,
                                size_t len,
                                const tranship_submit_options_t *options,
                                tranship_transfer_t **transfer);

/// Gives each peer its part of a region, all started together. The queue of the options gets one end a
/// target, or `transfers`, which may be NULL, one transfer a target. With neither, the call waits for all
/// and answers with the first end that is not well.
tranship_status_t tranship_scatter(tranship_engine_t *engine,
                                   tranship_region_t *region,
                                   const tranship_target_t *targets,
                                   size_t count,
                                   const tranship_submit_options_t *options,
                                   tranship_transfer_t **transfers);

/// Opens a counter.
tranship_status_t tranship_counter_open(tranship_engine_t *engine, tranship_counter_t **counter);

/// Its slot, for those who write: `slot` of tranship_submit_options_t.
tranship_status_t tranship_counter_slot(tranship_counter_t *counter, uint32_t *slot);

/// Arrivals so far; the payloads of all of them are visible.
tranship_status_t tranship_counter_count(tranship_counter_t *counter, uint64_t *count);

/// Waits until at least `target` have arrived, moving the engine on. `count`, which may be NULL, is how many
/// have, also after TRANSHIP_TIMEOUT.
tranship_status_t tranship_counter_wait(tranship_counter_t *counter,
                                        uint64_t target,
                                        uint64_t timeout_us,
                                        uint64_t *count);

/// Closes the counter; what carries its slot counts for nobody from now on.
tranship_status_t tranship_counter_close(tranship_counter_t *counter);

/// Watches the word at `offset` of a region, a multiple of 8.
tranship_status_t tranship_watcher_open(tranship_engine_t *engine,
                                        tranship_region_t *region,
                                        uint64_t offset,
                                        tranship_watcher_t **watcher);

/// The word now; what was written before it was bumped is visible.
tranship_status_t tranship_watcher_value(tranship_watcher_t *watcher, uint64_t *value);

/// Adds one to the word; `value`, which may be NULL, is what it is then.
tranship_status_t tranship_watcher_bump(tranship_watcher_t *watcher, uint64_t *value);

/// Waits until the word is not `past` any more, moving the engine on; `value` is what it is then.
tranship_status_t tranship_watcher_wait(tranship_watcher_t *watcher,
                                        uint64_t past,
                                        uint64_t timeout_us,
                                        uint64_t *value);

/// Puts each change of the word from now on into a queue, as TRANSHIP_COMPLETION_WATCH: one at a time, with
/// the latest value when it is drained. Replaces the queue before.
tranship_status_t tranship_watcher_notify(tranship_watcher_t *watcher,
                                          tranship_queue_t *queue,
                                          uint64_t user_data);

/// Closes the watcher: no change is put into a queue any more, but for one that is just happening.
tranship_status_t tranship_watcher_close(tranship_watcher_t *watcher);

/// Opens a barrier of this engine and `others` more. Each member opens its own, hands its invitation to
/// all, and joins the others before the first round.
tranship_status_t tranship_barrier_open(tranship_engine_t *engine,
                                        size_t others,
                                        tranship_barrier_t **barrier);

/// What the other members need, the same for all: bytes (a JSON text) to be handed over by any channel.
tranship_status_t tranship_barrier_invitation(tranship_barrier_t *barrier,
                                              uint8_t *buffer,
                                              size_t capacity,
                                              size_t *len);

/// Adds a member by its invitation, unless it is one already or this one.
tranship_status_t tranship_barrier_join(tranship_barrier_t *barrier,
                                        const uint8_t *invitation,
                                        size_t invitation_len);

/// Comes to the barrier and waits until all others have come. After TRANSHIP_TIMEOUT the round is not
/// over: the next call goes on with it.
tranship_status_t tranship_barrier_wait(tranship_barrier_t *barrier,
                                        uint64_t timeout_us);

/// Closes the barrier.
tranship_status_t tranship_barrier_close(tranship_barrier_t *barrier);

/// Takes the next of what came in, waiting for it and moving the engine on; TRANSHIP_TIMEOUT when nothing came.
/// A message is put into `buffer`. After TRANSHIP_TOO_SMALL it is kept, and `incoming` tells its length.
tranship_status_t tranship_recv(tranship_engine_t *engine,
                                tranship_incoming_t *incoming,
                                uint8_t *buffer,
                                size_t capacity,
                                uint64_t timeout_us);

/// Connects to a daemon. `options` may be NULL.
tranship_status_t tranship_client_connect(const tranship_client_options_t *options,
                                          tranship_client_t **client);

/// Asks for a sign of life; `us`, which may be NULL, is how long it took.
tranship_status_t tranship_client_ping(tranship_client_t *client, uint64_t *us);

/// Whether blocks are read and filled in place, in the daemon's memory, and not passed through memory of the
/// client's.
tranship_status_t tranship_client_is_mapped(tranship_client_t *client,
                                            uint32_t *mapped);

/// The tenant's statistics, a JSON text.
tranship_status_t tranship_client_stats(tranship_client_t *client,
                                        char *buffer,
                                        size_t capacity,
                                        size_t *len);

/// Closes the handle. Caches, leases and rooms that it gave out keep the connection until they are closed.
tranship_status_t tranship_client_close(tranship_client_t *client);

/// Says in which fields two identities differ: an empty text when they agree.
tranship_status_t tranship_identity_explain(const tranship_identity_t *ours,
                                            const tranship_identity_t *theirs,
                                            char *buffer,
                                            size_t capacity,
                                            size_t *len);

/// The 16 bytes that name an identity in events, for a client of tenant `tenant` (NULL for "default").
tranship_status_t tranship_identity_id(const tranship_identity_t *identity,
                                       const char *tenant,
                                       uint8_t (*id)[16]);

/// Opens the blocks of an identity.
tranship_status_t tranship_cache_open(tranship_client_t *client,
                                      const tranship_identity_t *identity,
                                      tranship_cache_t **cache);

/// Closes the handle.
tranship_status_t tranship_cache_close(tranship_cache_t *cache);

/// Finds the longest prefix of a chain that can be loaded now: so many keys, from the first.
/// `presence`, which may be NULL, gets TRANSHIP_PRESENCE_* for each key.
tranship_status_t tranship_lookup(tranship_cache_t *cache,
                                  const tranship_key_t *chain,
                                  size_t count,
                                  size_t *prefix,
                                  uint8_t *presence);

/// Keeps blocks from being evicted until they are unpinned; `done`, which may be NULL, is how many.
tranship_status_t tranship_pin(tranship_cache_t *cache,
                               const tranship_key_t *list,
                               size_t count,
                               uint64_t *done);

/// Takes pins off; `done`, which may be NULL, is how many.
tranship_status_t tranship_unpin(tranship_cache_t *cache,
                                 const tranship_key_t *list,
                                 size_t count,
                                 uint64_t *done);

/// Has blocks of tiers below brought to memory, without waiting; `done`, which may be NULL, is how many are
/// there or on their way.
tranship_status_t tranship_prefetch(tranship_cache_t *cache,
                                    const tranship_key_t *list,
                                    size_t count,
                                    uint64_t *done);

/// Removes blocks, pinned or not; `done`, which may be NULL, is how many.
tranship_status_t tranship_remove(tranship_cache_t *cache,
                                  const tranship_key_t *list,
                                  size_t count,
                                  uint64_t *done);

/// Has blocks written to the fastest tier below memory, and waits up to `wait_us` until they survive a crash
/// there: `safe` gets 1 for each that does. TRANSHIP_REFUSED without a tier below memory.
tranship_status_t tranship_persist(tranship_cache_t *cache,
                                   const tranship_key_t *list,
                                   size_t count,
                                   uint64_t wait_us,
                                   uint8_t *safe);

/// The links of the full blocks of a sequence of tokens, under the identity of a cache, which says how many
/// tokens a block has. It goes on after the block `after`, which may be NULL. `blocks`, which may be NULL, is how
/// many full blocks there are; TRANSHIP_TOO_SMALL when that is more than `max`.
tranship_status_t tranship_links_of_tokens(tranship_cache_t *cache,
                                           const uint32_t *tokens,
                                           size_t count,
                                           const tranship_link_t *after_link,
                                           tranship_link_t *links,
                                           size_t max,
                                           size_t *blocks);

/// The links of blocks that an engine has hashed itself, each hash, of `hash_bytes` bytes, over all blocks
/// before it. `context` holds what the hash leaves out, such as its algorithm. It goes on after the block
/// `after`, which may be NULL. There are `count` hashes, and as many links.
tranship_status_t tranship_links_of_hashes(const uint8_t *context,
                                           size_t context_len,
                                           const uint8_t *hashes,
                                           size_t hash_bytes,
                                           size_t count,
                                           const tranship_link_t *after_link,
                                           tranship_link_t *links);

/// The key of a name of any length, for blocks that are in no chain. `context` keeps names of different uses
/// apart; it may be empty.
tranship_status_t tranship_key_of_name(const uint8_t *context,
                                       size_t context_len,
                                       const uint8_t *name,
                                       size_t len,
                                       tranship_key_t *key);

/// Loads blocks into memory of the caller's, each checked on the way, waiting up to `wait_us` for those that are
/// being filled or come up from a tier below. `results` gets TRANSHIP_BLOCK_* for each; what is not
/// TRANSHIP_BLOCK_READY is a miss, and no failure of the call.
tranship_status_t tranship_load(tranship_cache_t *cache,
                                const tranship_key_t *list,
                                const tranship_spans_t *into,
                                size_t count,
                                uint64_t wait_us,
                                uint32_t *results);

/// Stores blocks from memory of the caller's, that live no longer than `ttl_us` (0: as long as they are worth
/// it). `results` gets TRANSHIP_STORE_* for each; those of one chain come in order.
tranship_status_t tranship_store(tranship_cache_t *cache,
                                 const tranship_link_t *list,
                                 const tranship_spans_t *from,
                                 size_t count,
                                 uint64_t ttl_us,
                                 uint32_t *results);

/// Keeps blocks in place for reading, for at most `ttl_us` (0 for half a minute), waiting up to `wait_us` for
/// those that are being filled or come up from a tier below. `results`, which may be NULL, gets one a block;
/// blocks that are not there are no failure of the call.
tranship_status_t tranship_lease_open(tranship_cache_t *cache,
                                      const tranship_key_t *list,
                                      size_t count,
                                      uint64_t wait_us,
                                      uint64_t ttl_us,
                                      tranship_leased_t *results,
                                      tranship_lease_t **lease);

/// Copies the `index`-th block to `into`, which has its length, checking it on the way. TRANSHIP_NOT_READY and
/// TRANSHIP_CORRUPT are misses.
tranship_status_t tranship_lease_read(tranship_lease_t *lease,
                                      size_t index,
                                      void *into,
                                      size_t len);

/// Checks the `index`-th block and tells where it is: `len` bytes from `data` on, until the lease is closed or
/// its time is over. Other processes of the tenant could write there: copy what must not change.
tranship_status_t tranship_lease_view(tranship_lease_t *lease,
                                      size_t index,
                                      const void **data,
                                      size_t *len);

/// Releases the blocks and closes the handle.
tranship_status_t tranship_lease_close(tranship_lease_t *lease);

/// Asks for room for blocks of so many bytes each, that live no longer than `ttl_us` once committed (0: as long
/// as they are worth it). One grant a block. The blocks of one chain come in order.
tranship_status_t tranship_reserve(tranship_cache_t *cache,
                                   const tranship_link_t *blocks,
                                   const uint64_t *lens,
                                   size_t count,
                                   uint64_t ttl_us,
                                   tranship_grant_t *grants);

/// Where to fill the block: `len` bytes from `data` on, until the room is committed or closed.
tranship_status_t tranship_room_space(tranship_room_t *room, void **data, size_t *len);

/// Fills the block by a copy of `len` bytes, which is its length.
tranship_status_t tranship_room_write(tranship_room_t *room, const void *data, size_t len);

/// Makes filled blocks readable, and closes their rooms. `results` gets TRANSHIP_STORE_STORED or
/// TRANSHIP_STORE_REFUSED a block, for which tranship_last_reason() says why. When the call itself fails with
/// TRANSHIP_INVALID, TRANSHIP_BAD_HANDLE or TRANSHIP_CLOSED, no room was closed.
tranship_status_t tranship_commit(tranship_cache_t *cache,
                                  tranship_room_t *const *rooms,
                                  size_t count,
                                  uint32_t *results);

/// Gives the room back, and closes the handle.
tranship_status_t tranship_room_close(tranship_room_t *room);

/// Starts `threads` threads for jobs, 0 for two.
tranship_status_t tranship_jobs_open(uint32_t threads, tranship_jobs_t **jobs);

/// As tranship_load(), on a thread of the library's. The memory of the blocks, and `results`, belong to the job until
/// it was drained, or the jobs were closed; the lists themselves are copied.
tranship_status_t tranship_jobs_load(tranship_jobs_t *jobs,
                                     tranship_cache_t *cache,
                                     const tranship_key_t *list,
                                     const tranship_spans_t *into,
                                     size_t count,
                                     uint64_t wait_us,
                                     uint64_t user_data,
                                     uint32_t *results);

/// As tranship_store(), on a thread of the library's. The memory of the blocks, and `results`, belong to the job
/// until it was drained, or the jobs were closed; the lists themselves are copied.
tranship_status_t tranship_jobs_store(tranship_jobs_t *jobs,
                                      tranship_cache_t *cache,
                                      const tranship_link_t *list,
                                      const tranship_spans_t *from,
                                      size_t count,
                                      uint64_t ttl_us,
                                      uint64_t user_data,
                                      uint32_t *results);

/// The event descriptor that is readable while there is something to drain: for poll(2) and epoll(7). It
/// belongs to the jobs: do not read or close it.
tranship_status_t tranship_jobs_fd(tranship_jobs_t *jobs,
                                   int32_t *fd);

/// Takes up to `max` of the jobs that have ended, and puts the results of their blocks where they were asked for;
/// `count` is how many jobs, 0 for none.
tranship_status_t tranship_jobs_drain(tranship_jobs_t *jobs,
                                      tranship_done_t *done,
                                      size_t max,
                                      size_t *count);

/// As tranship_jobs_drain(), but waits until a job has ended. TRANSHIP_TIMEOUT when none did within
/// `timeout_us`.
tranship_status_t tranship_jobs_wait(tranship_jobs_t *jobs,
                                     tranship_done_t *done,
                                     size_t max,
                                     uint64_t timeout_us,
                                     size_t *count);

/// Takes no more jobs, waits for those under way, whose calls all have deadlines, and closes the handle. Those
/// whose turn has not come are not done; what was not drained is lost.
tranship_status_t tranship_jobs_close(tranship_jobs_t *jobs);

/// Why the `index`-th result of the last call on this thread that told results of stores or jobs is as it is, and
/// what to do: one line. Never NULL; empty when there is nothing to say. Good until the next such call
/// on this thread.
const char *tranship_last_reason(size_t index);

/// Follows events from number `from` on, or from TRANSHIP_EVENTS_NOW.
tranship_status_t tranship_events_open(tranship_cache_t *cache,
                                       uint64_t from,
                                       tranship_events_t **events);

/// The next event, waiting up to `timeout_us`: TRANSHIP_TIMEOUT when none came. After TRANSHIP_DISCONNECTED open
/// events again from the next number: a gap is told.
tranship_status_t tranship_events_next(tranship_events_t *events,
                                       uint64_t timeout_us,
                                       tranship_event_t *event);

/// Ends the subscription.
tranship_status_t tranship_events_close(tranship_events_t *events);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TRANSHIP_H */
