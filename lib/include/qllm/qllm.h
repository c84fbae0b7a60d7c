/* libqllm, C API (C11). Everything a program needs to run a language model on this machine.
 *
 *     qllm_error error;
 *     qllm_model* model = NULL;
 *     if (qllm_model_open("model.gguf", NULL, &model, &error) != QLLM_OK) puts(error.message);
 *
 * Errors: every call that can fail returns a qllm_status. `error` receives the code and one line of
 * text; it belongs to the caller and may be NULL. Where a call fails, its other outputs are
 * untouched unless said otherwise. NULL where a pointer is needed is QLLM_INVALID_ARGUMENT, never a
 * crash. C++ exceptions never leave the library; one thrown by a callback becomes QLLM_INTERNAL.
 *
 * Structs with `struct_size`: a shorter one (of a program built against an older header) is
 * accepted and what it lacks takes its default; of a longer one the library ignores what it does
 * not know, or fills it with zeros where the struct is an output. Zero is refused.
 *
 * Ownership: who creates a handle destroys it. Strings and arrays that are passed in are only read
 * during the call. A session keeps its model alive: close them in any order.
 *
 * Threads: a model may be used by many threads at once. A session belongs to one thread at a time,
 * except for qllm_session_cancel(). There is no global state.
 *
 * Text is UTF-8, passed in with its length in bytes; it need not end in a NUL.
 */
#ifndef QLLM_QLLM_H
#define QLLM_QLLM_H

#include <stddef.h>
#include <stdint.h>

#ifndef QLLM_API
#if defined(_WIN32)
#define QLLM_API
#else
#define QLLM_API __attribute__((visibility("default")))
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Errors ---------------------------------------------------------------------------------- */

/** What went wrong, coarse enough to branch on. The values are stable. */
typedef enum qllm_status {
  QLLM_OK = 0,
  QLLM_INVALID_ARGUMENT = 1, /**< a parameter of the call is out of range */
  QLLM_NOT_FOUND = 2,        /**< no such file, tensor, device or tier */
  QLLM_IO = 3,               /**< reading or writing failed */
  QLLM_BAD_FORMAT = 4,       /**< a file's content breaks its format */
  QLLM_UNSUPPORTED = 5,      /**< well-formed, but outside what this build or machine does */
  QLLM_OUT_OF_MEMORY = 6,    /**< an allocation was refused */
  QLLM_CONTEXT_FULL = 7,     /**< the KV cache has no room left */
  QLLM_CANCELLED = 8,        /**< the caller asked to stop */
  QLLM_INTERNAL = 9          /**< a defect of the library */
} qllm_status;

/** Filled by every call that it is given to; after a success it holds QLLM_OK and "". */
typedef struct qllm_error {
  qllm_status code;
  char message[512]; /**< one line, ends in a NUL, cut between characters where it is longer */
} qllm_error;

/** "ok", "invalid_argument", …; "unknown" for any other value. Static: never freed. */
QLLM_API const char* qllm_status_name(qllm_status status);

/** "major.minor.patch" of the library that runs. Static: never freed. */
QLLM_API const char* qllm_version(void);

/* ---- Opening --------------------------------------------------------------------------------- */

/** A loaded model. */
typedef struct qllm_model qllm_model;
/** One sequence and its KV cache. */
typedef struct qllm_session qllm_session;

/** Receives a log line: level 0 debug, 1 info, 2 warning, 3 error. `line` ends in a NUL, has no
 * newline and is valid during the call. May come from any thread that uses the model. */
typedef void (*qllm_log_fn)(int level, const char* line, void* user);

/** Receives a stage ("loading", …) and a fraction in [0, 1]. Return nonzero to cancel the call,
 * which then gives QLLM_CANCELLED. Called on the thread that opens. */
typedef int (*qllm_progress_fn)(const char* stage, double fraction, void* user);

/** How to open a model. */
typedef struct qllm_open_options {
  size_t struct_size;       /**< bytes of this struct as the caller knows it */
  const char* device;       /**< "cpu", "reference" (slow, exact) or "auto"; NULL: "auto" */
  const char* scheme;       /**< "int8"; "int4-g32", "int4-g64", "int4-g128", each also with "-sym";
                               "keep" (the file's own grid); "fp32" (reference only); NULL: what the
                               device prefers */
  const char* isa;          /**< kernel tier: "scalar", "avx2", …; NULL: the best */
  const char* cpus;         /**< CPU list such as "0-3,8"; NULL: all that the process may use */
  int64_t max_batch_tokens; /**< tokens computed in one step of prefill; default 512 */
  int32_t threads;          /**< workers; 0 (default): one per physical core */
  int32_t large_pages;      /**< nonzero (default): ask the system for large pages */
  qllm_log_fn log;          /**< may be NULL; used while the model lives */
  void* log_user;           /**< handed to `log` */
  qllm_progress_fn progress; /**< may be NULL; used until the model is open */
  void* progress_user;       /**< handed to `progress` */
  int32_t rotate;            /**< nonzero (default): int8 weights are rotated where possible */
  int32_t reserved;          /**< leave 0 */
  const char* kv_format;     /**< keys and values: "bf16", "int8" with a scale per head, or
                                  "f16" on a GPU; NULL: "bf16" */
  int64_t kv_memory_bytes;   /**< for the keys and values of all sessions; 0 (default): 131,072
                                  tokens or two full contexts, at most a quarter of the memory */
  const char* memory;       /**< where weights lie: "map" (packed files in place), "copy", "hugetlb"
                                 (explicit large pages), or "auto"; NULL: "auto" */
  const char* cache_folder; /**< for packed copies of GGUF models, so that the next open maps them;
                                 made where it is missing; NULL or "" (default): nothing is written
                                 anywhere */
  int64_t cache_bytes;      /**< the most that folder may hold; default 64 GiB */
  int32_t lock_memory;      /**< nonzero: keep the weights from being swapped out (mlock) */
  int32_t reserved2;        /**< leave 0 */
  const char* numa;         /**< on a machine of several memory nodes: "split", "interleave",
                                 "local", "replicate"; NULL: "split" */
  int64_t gpu_layers;       /**< where a GPU takes a part of the model: how many layers, the last
                                 ones, and the LM head with them; 0: none; -1 (default): as many as
                                 fit into its free memory */
} qllm_open_options;

/** Sets all defaults; `struct_size` is sizeof(qllm_open_options).
 * Fails with invalid_argument for NULL or a size that no version of the struct has. */
QLLM_API qllm_status qllm_open_options_init(qllm_open_options* options, size_t struct_size);

/** Loads a GGUF or a packed (.qllm) file; `options` may be NULL. On success qllm_model_close()
 * takes `*model`. Fails with not_found, io, bad_format, unsupported, out_of_memory, cancelled,
 * invalid_argument. */
QLLM_API qllm_status qllm_model_open(const char* path, const qllm_open_options* options,
                                     qllm_model** model, qllm_error* error);

/** Writes a GGUF file as a packed one, as `options` (may be NULL) would load it, whole or not at
 * all. `*bytes` (may be NULL) becomes its size. Fails with io (a full disk, another process that
 * writes the same file) and as qllm_model_open. */
QLLM_API qllm_status qllm_quantize(const char* path, const char* out,
                                   const qllm_open_options* options, int64_t* bytes,
                                   qllm_error* error);

/** The shape of a model of random weights, for benchmarks. */
typedef struct qllm_synthetic_shape {
  size_t struct_size; /**< bytes of this struct as the caller knows it */
  int64_t d_model;    /**< default 2048 */
  int64_t d_ff;       /**< default 8192 */
  int64_t n_layers;   /**< default 16 */
  int64_t n_heads;    /**< default 32 */
  int64_t n_kv_heads; /**< default 8 */
  int64_t head_dim;   /**< default 64 */
  int64_t vocab;      /**< default 49152 */
  uint64_t seed;      /**< default 1 */
} qllm_synthetic_shape;

/** Sets all defaults; `struct_size` is sizeof(qllm_synthetic_shape).
 * Fails as qllm_open_options_init. */
QLLM_API qllm_status qllm_synthetic_shape_init(qllm_synthetic_shape* shape, size_t struct_size);

/** Makes a model of random weights, without a tokenizer; `shape` and `options` may be NULL.
 * Fails with invalid_argument, out_of_memory, cancelled. */
QLLM_API qllm_status qllm_model_synthetic(const qllm_synthetic_shape* shape,
                                          const qllm_open_options* options, qllm_model** model,
                                          qllm_error* error);

/** Gives the model back; sessions that use it keep working. NULL is allowed. */
QLLM_API void qllm_model_close(qllm_model* model);

/* ---- Looking at it --------------------------------------------------------------------------- */

/** The scalars of a model. Set `struct_size` to sizeof(qllm_model_info) before the call. The
 * strings belong to the model and live until qllm_model_close(). */
typedef struct qllm_model_info {
  size_t struct_size;       /**< bytes of this struct as the caller knows it */
  const char* architecture; /**< "llama", … */
  const char* name;         /**< may be "" */
  const char* tokenizer;    /**< "bpe (smollm)", "spm (llama)"; "" where there is none */
  int64_t vocab_size, d_model, d_ff, n_layers, n_heads, n_kv_heads, head_dim, rotary_dim;
  int64_t context_length;     /**< tokens; the longest the model was trained for */
  int64_t parameters;         /**< weights in the file */
  int64_t file_bytes;         /**< 0 for a synthetic model */
  int64_t weight_bytes;       /**< packed, in memory */
  int64_t bytes_per_token;    /**< read by one decode step with an empty cache */
  int64_t kv_bytes_per_token; /**< taken in the cache by one token */
  float rms_norm_eps;
  float rope_base;
  int32_t tied_lm_head;      /**< nonzero: the embedding table is the LM head */
  int32_t has_chat_template; /**< nonzero: the file carries a template */
  const char* scheme;        /**< how the weights are held: qllm_open_options.scheme */
  int32_t rotated;           /**< nonzero: the weights are rotated */
  int32_t reserved;
} qllm_model_info;

/** Fills `info` up to its struct_size. Fails with invalid_argument. */
QLLM_API qllm_status qllm_model_get_info(const qllm_model* model, qllm_model_info* info,
                                         qllm_error* error);

/* Calls that write into a caller's buffer set `*length` (or `*count`) to what there is. With buffer
 * NULL and capacity 0 they only do that. A buffer that is too small is left alone, and the call
 * fails with invalid_argument; `*length` is set all the same. Text is ended by a NUL that `*length`
 * does not count: it needs capacity `*length` + 1, in bytes. */

/** What the model runs on, one fact a line: processor, tiers, cores, workers, memory, notes. */
QLLM_API qllm_status qllm_model_describe_machine(const qllm_model* model, char* buffer,
                                                 size_t capacity, size_t* length,
                                                 qllm_error* error);

/** The same without a model, as `options` (may be NULL) would use the machine. */
QLLM_API qllm_status qllm_describe_machine(const qllm_open_options* options, char* buffer,
                                           size_t capacity, size_t* length, qllm_error* error);

/** Where the weights lie and who reads them. Set `struct_size` before the call. */
typedef struct qllm_placement {
  size_t struct_size;
  int64_t local_bytes;           /**< on the memory node of the worker that reads them */
  int64_t remote_bytes;          /**< on another */
  int64_t nowhere_bytes;         /**< not in memory now, or unknown */
  int64_t remote_bytes_per_step; /**< read from another node by one decode step */
  int32_t known;                 /**< zero: the kernel does not tell */
  int32_t bound;                 /**< zero: the system refuses to bind memory to nodes */
} qllm_placement;

/** Asks the kernel where each page is now: some 0.1 s per GB. Fails with invalid_argument. */
QLLM_API qllm_status qllm_model_get_placement(const qllm_model* model, qllm_placement* placement,
                                              qllm_error* error);

/** Measures the read bandwidth of the model's workers now: the ceiling of decode. Streams `bytes`
 * (0: 512 MiB; at least 64 MiB); `*gbps` is in GB/s (1e9 bytes/s), 0 where it cannot be measured.
 * Fails with invalid_argument, out_of_memory. */
QLLM_API qllm_status qllm_model_measure_read_gbps(const qllm_model* model, int64_t bytes,
                                                  double* gbps, qllm_error* error);

/* ---- Text ------------------------------------------------------------------------------------ */

/** Flags of qllm_model_tokenize() and qllm_model_detokenize(). */
enum {
  QLLM_ADD_SPECIAL = 1,   /**< tokenize: bos and eos as the vocabulary says */
  QLLM_PARSE_SPECIAL = 2, /**< tokenize: recognise control tokens written out in the text */
  QLLM_SHOW_SPECIAL = 4   /**< detokenize: write control tokens out */
};

/** Text to token ids; `capacity` and `*count` are numbers of ids. `text` may be NULL where `length`
 * is 0. Fails with invalid_argument, unsupported (no tokenizer). */
QLLM_API qllm_status qllm_model_tokenize(const qllm_model* model, const char* text, size_t length,
                                         uint32_t flags, int32_t* ids, size_t capacity,
                                         size_t* count, qllm_error* error);

/** Token ids to text. Fails with invalid_argument (an id outside the vocabulary), unsupported. */
QLLM_API qllm_status qllm_model_detokenize(const qllm_model* model, const int32_t* ids,
                                           size_t count, uint32_t flags, char* buffer,
                                           size_t capacity, size_t* length, qllm_error* error);

/** One turn of a conversation; both strings end in a NUL. */
typedef struct qllm_chat_message {
  const char* role; /**< "system", "user" or "assistant" */
  const char* content;
} qllm_chat_message;

/** Renders a conversation with the model's own template. Nonzero `add_generation_prompt` opens the
 * assistant's turn. Fails with invalid_argument, unsupported (a template of an unknown kind). */
QLLM_API qllm_status qllm_model_render_chat(const qllm_model* model,
                                            const qllm_chat_message* messages, size_t count,
                                            int add_generation_prompt, char* buffer,
                                            size_t capacity, size_t* length, qllm_error* error);

/* ---- Sessions -------------------------------------------------------------------------------- */

/** Starts an empty sequence. `max_context`: most tokens its cache will hold, whose memory is taken
 * as it grows; 0: the model's context length, at most 4096. On success qllm_session_destroy() takes
 * `*session`. Fails with invalid_argument (negative, or beyond the model's context length),
 * out_of_memory. */
QLLM_API qllm_status qllm_session_create(const qllm_model* model, int64_t max_context,
                                         qllm_session** session, qllm_error* error);

/** Gives the session back. NULL is allowed. No call on it may be running. */
QLLM_API void qllm_session_destroy(qllm_session* session);

/** Forgets all tokens. Fails with invalid_argument. */
QLLM_API qllm_status qllm_session_reset(qllm_session* session, qllm_error* error);

/** Forgets what lies behind the first `position` tokens. Fails with invalid_argument (below 0, or
 * beyond qllm_session_position()); the session is then as before. */
QLLM_API qllm_status qllm_session_truncate(qllm_session* session, int64_t position,
                                           qllm_error* error);

/** Stops a running generate at the next token. From any thread or a signal handler.
 * NULL is allowed. */
QLLM_API void qllm_session_cancel(qllm_session* session);

/** Writes what the cache holds to a file, whole or not at all, readable by its owner alone: it
 * holds the text. Fails with invalid_argument, io. */
QLLM_API qllm_status qllm_session_save(const qllm_session* session, const char* path,
                                       qllm_error* error);

/** Takes up what qllm_session_save() wrote, in place of what the cache holds; of the same model,
 * scheme, device and KV format. Only for files that you trust to be your own: keys and values
 * cannot be checked against the text. Fails with not_found, io, bad_format (a damaged file),
 * unsupported (another version), invalid_argument (another model or format), context_full,
 * out_of_memory; the session is then as before. */
QLLM_API qllm_status qllm_session_restore(qllm_session* session, const char* path,
                                          qllm_error* error);

/** The ids in the cache; `capacity` and `*count` are numbers of ids. Fails with invalid_argument.
 */
QLLM_API qllm_status qllm_session_tokens(const qllm_session* session, int32_t* ids, size_t capacity,
                                         size_t* count, qllm_error* error);

/** Tokens in the cache; -1 for NULL. */
QLLM_API int64_t qllm_session_position(const qllm_session* session);

/** Most tokens that the cache will hold; -1 for NULL. */
QLLM_API int64_t qllm_session_max_context(const qllm_session* session);

/** How to generate. */
typedef struct qllm_generate_options {
  size_t struct_size;    /**< bytes of this struct as the caller knows it */
  int64_t max_tokens;    /**< most tokens to generate; -1: until the context is full; default 256 */
  uint64_t seed;         /**< 0 (default): from the system's entropy */
  float temperature;     /**< 0: greedy; default 0.8 */
  float top_p;           /**< keep the least set of at least this mass; 1: all; default 0.95 */
  float min_p;           /**< drop what is below this fraction of the likeliest; default 0.05 */
  float repeat_penalty;  /**< divide/multiply logits of recent tokens; 1 (default): off */
  int32_t top_k;         /**< keep the k likeliest; 0: all; default 40 */
  int32_t repeat_window; /**< how many recent tokens the penalty sees; default 64 */
  int32_t ignore_end;    /**< nonzero: go on behind an end-of-text token; default 0 */
  int32_t add_special;   /**< nonzero (default): bos as the vocabulary says */
  int32_t parse_special; /**< nonzero: recognise control tokens written out in the prompt */
  int32_t reserved;      /**< leave 0 */
} qllm_generate_options;

/** Sets all defaults; `struct_size` is sizeof(qllm_generate_options).
 * Fails as qllm_open_options_init. */
QLLM_API qllm_status qllm_generate_options_init(qllm_generate_options* options, size_t struct_size);

/** Why generating ended. The values are stable. */
typedef enum qllm_finish_reason {
  QLLM_FINISH_STOP = 0,         /**< the model ended its text */
  QLLM_FINISH_LENGTH = 1,       /**< max_tokens were made */
  QLLM_FINISH_CONTEXT_FULL = 2, /**< the context or the KV memory has no room left */
  QLLM_FINISH_CANCELLED = 3     /**< the callback or qllm_session_cancel() asked to stop */
} qllm_finish_reason;

/** What was done. Set `struct_size` to sizeof(qllm_generate_result) before the call. */
typedef struct qllm_generate_result {
  size_t struct_size;       /**< bytes of this struct as the caller knows it */
  int64_t prompt_tokens;    /**< of the whole prompt */
  int64_t reused_tokens;    /**< of them, found in the cache and not computed again */
  int64_t generated_tokens; /**< the end token excluded */
  double ttft_s;            /**< seconds from the call to the first token */
  double decode_s;          /**< seconds from the first token to the last */
  qllm_finish_reason finish_reason;
  int32_t reserved;
} qllm_generate_result;

/** Receives text as it is made: whole UTF-8 characters, `length` bytes, then a NUL; valid during
 * the call. Return nonzero to stop. Called on the thread that generates. */
typedef int (*qllm_text_fn)(const char* text, size_t length, void* user);

/** Completes `prompt`. What the cache already holds of it (a common prefix), and whole blocks of 64
 * tokens that any session of the model has computed for the same beginning, are not computed again.
 * `options`, `on_text` and `result` may be NULL. Stopping is a success; see finish_reason.
 * Fails with invalid_argument (an empty prompt, an option out of range), unsupported (no
 * tokenizer), context_full (a prompt longer than the context), out_of_memory (all sessions together
 * have filled the KV memory). */
QLLM_API qllm_status qllm_session_generate(qllm_session* session, const char* prompt, size_t length,
                                           const qllm_generate_options* options,
                                           qllm_text_fn on_text, void* user,
                                           qllm_generate_result* result, qllm_error* error);

/** The same for a prompt of `count` ids. Fails also with invalid_argument for an unknown id. */
QLLM_API qllm_status qllm_session_generate_ids(qllm_session* session, const int32_t* ids,
                                               size_t count, const qllm_generate_options* options,
                                               qllm_text_fn on_text, void* user,
                                               qllm_generate_result* result, qllm_error* error);

/** Receives logits of tokens [first, first+count): row-major [count, vocab_size], valid during the
 * call. Return nonzero to stop. Called on the thread that evaluates. */
typedef int (*qllm_logits_fn)(int64_t first, int64_t count, const float* logits, int64_t vocab_size,
                              void* user);

/** Forgets the cache, evaluates all ids and hands out the logits of each, some tokens at a time.
 * Fails with invalid_argument, context_full. */
QLLM_API qllm_status qllm_session_evaluate(qllm_session* session, const int32_t* ids, size_t count,
                                           qllm_logits_fn on_logits, void* user, qllm_error* error);

/** Computes ids behind the cache without logits, max_batch_tokens at a time: for benchmarks.
 * Fails with invalid_argument, context_full. */
QLLM_API qllm_status qllm_session_prefill(qllm_session* session, const int32_t* ids, size_t count,
                                          qllm_error* error);

/** One decode step of one token, without sampling: for benchmarks.
 * Fails with invalid_argument, context_full. */
QLLM_API qllm_status qllm_session_decode(qllm_session* session, int32_t id, qllm_error* error);

/* ---- Traces ---------------------------------------------------------------------------------- */

/** What every worker, device and session of a model does, op by op, while it is recorded. */
typedef struct qllm_trace qllm_trace;

/** What a trace holds. Set `struct_size` before the call. */
typedef struct qllm_trace_info {
  size_t struct_size;
  int64_t steps;         /**< recorded, of all sessions: one pass over the weights each */
  int64_t spans;         /**< recorded: an op on a worker, a call of a session */
  int64_t dropped_steps; /**< that found no room */
  int64_t dropped_spans; /**< likewise */
} qllm_trace_info;

/** Begins to record a model; a step takes less than 1 % longer. `memory_bytes` is taken at once (0:
 * 32 MiB; at least 64 KiB). On success qllm_trace_destroy() takes `*trace`. Fails with
 * invalid_argument (also where the model is being recorded already), out_of_memory. */
QLLM_API qllm_status qllm_trace_start(const qllm_model* model, int64_t memory_bytes,
                                      qllm_trace** trace, qllm_error* error);

/** Ends the recording, behind the step that runs; again: nothing. `info` may be NULL. Fails with
 * invalid_argument. */
QLLM_API qllm_status qllm_trace_stop(qllm_trace* trace, qllm_trace_info* info, qllm_error* error);

/** Receives a piece of JSON, valid during the call. Return nonzero to end. */
typedef int (*qllm_trace_fn)(const char* json, size_t length, void* user);

/** Ends the recording and hands out all of it, in the trace event format that Perfetto and
 * chrome://tracing open. Fails with invalid_argument, cancelled (`on_piece` wanted no more). */
QLLM_API qllm_status qllm_trace_write(qllm_trace* trace, qllm_trace_fn on_piece, void* user,
                                      qllm_error* error);

/** Ends the recording and gives the trace back; it keeps its model alive until then. NULL is
 * allowed. */
QLLM_API void qllm_trace_destroy(qllm_trace* trace);

#ifdef __cplusplus
}
#endif

#endif /* QLLM_QLLM_H */
