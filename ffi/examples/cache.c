// Stores the KV of a sequence of tokens and loads it again:
//
//   cc cache.c $(pkg-config --cflags --libs tranship) -o cache && ./cache [ADDRESS]
//
// Without an address it talks to the daemon that `tranship serve` has started for this user.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tranship.h>

#define BLOCKS 8
#define BLOCK_TOKENS 16
#define BLOCK_BYTES 65536

static void check(tranship_status_t status) {
  if (status == TRANSHIP_OK) return;
  fprintf(stderr, "%s\n", tranship_last_error());
  exit(1);
}

int main(int argc, char **argv) {
  check(tranship_require(TRANSHIP_ABI_VERSION));
  tranship_client_options_t options = TRANSHIP_INIT(tranship_client_options_t);
  options.address = argc > 1 ? argv[1] : NULL;
  tranship_client_t *client = NULL;
  check(tranship_client_connect(&options, &client));

  // What must agree before the bytes of one cache may stand in for those of another.
  tranship_identity_t identity = TRANSHIP_INIT(tranship_identity_t);
  identity.model = "llama-3.1-8b";
  identity.revision = "main";
  identity.dtype = "bf16";
  identity.layers = 32;
  identity.kv_heads = 8;
  identity.head_dim = 128;
  identity.block_tokens = BLOCK_TOKENS;
  tranship_cache_t *cache = NULL;
  check(tranship_cache_open(client, &identity, &cache));

  // The keys of the sequence's blocks: each tells of all the tokens before it.
  uint32_t tokens[BLOCKS * BLOCK_TOKENS];
  for (size_t i = 0; i < BLOCKS * BLOCK_TOKENS; i++) tokens[i] = (uint32_t)(i * i);
  tranship_link_t links[BLOCKS];
  check(tranship_links_of_tokens(cache, tokens, BLOCKS * BLOCK_TOKENS, NULL, links, BLOCKS, NULL));
  tranship_key_t keys[BLOCKS];
  for (size_t i = 0; i < BLOCKS; i++) keys[i] = links[i].key;

  // How much of it is there already?
  size_t prefix = 0;
  check(tranship_lookup(cache, keys, BLOCKS, &prefix, NULL));
  printf("%zu of %d blocks are there\n", prefix, BLOCKS);

  // The rest is computed, and stored from where it is.
  unsigned char *kv = malloc(BLOCKS * BLOCK_BYTES);
  if (kv == NULL) return 1;
  tranship_span_t spans[BLOCKS];
  tranship_spans_t blocks[BLOCKS];
  for (size_t i = 0; i < BLOCKS; i++) {
    memset(kv + i * BLOCK_BYTES, (int)i, BLOCK_BYTES);
    spans[i] = (tranship_span_t){kv + i * BLOCK_BYTES, BLOCK_BYTES};
    blocks[i] = (tranship_spans_t){&spans[i], 1};
  }
  uint32_t results[BLOCKS];
  check(tranship_store(cache, links + prefix, blocks + prefix, BLOCKS - prefix, 0, results));
  for (size_t i = 0; i < BLOCKS - prefix; i++)
    if (results[i] == TRANSHIP_STORE_REFUSED) printf("block %zu: %s\n", i, tranship_last_reason(i));

  // Another engine would find all of it. What is not ready is a miss, and computed.
  memset(kv, 0xff, BLOCKS * BLOCK_BYTES);
  check(tranship_load(cache, keys, blocks, BLOCKS, 0, results));
  size_t ready = 0;
  while (ready < BLOCKS && results[ready] == TRANSHIP_BLOCK_READY && kv[ready * BLOCK_BYTES] == ready)
    ready++;
  printf("%zu of %d blocks were loaded\n", ready, BLOCKS);

  free(kv);
  check(tranship_cache_close(cache));
  check(tranship_client_close(client));
  return ready == BLOCKS ? 0 : 1;
}
