// libqllm, C++ API. Everything a program needs to run a language model on this machine.
//
//   auto model = qllm::Model::open("model.gguf");
//   qllm::Session session(model);
//   session.generate("Once upon a time", {}, [](std::string_view t) { std::cout << t; return true;
//   });
//
// Errors are thrown as qllm::Error. No global state, no output, no abort. A Model may be shared by
// threads; a Session belongs to one thread at a time (cancel() excepted).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qllm/chat_message.hpp"
#include "qllm/error.hpp"

namespace qllm {

/// "major.minor.patch".
QLLM_API std::string version();

/// How to open a model.
struct OpenOptions {
  std::string device = "auto";  ///< "cpu", "reference" (slow, exact) or "auto" (cpu)
  /// How weights are held: "int8" (per output); "int4-g32", "int4-g64", "int4-g128" (4 bits in
  /// groups with a minimum; with "-sym" behind it, symmetric); "keep" (on the grid of the file,
  /// int8 in groups of 32 where it has none); "fp32" (reference only). Empty: int8 on the cpu, fp32
  /// on the reference.
  std::string scheme;
  std::string isa;   ///< kernel tier by name ("scalar", "avx2", "avxvnni", "avx512vnni", "amx");
                     ///< empty: the best
  int threads = 0;   ///< workers; 0: one per physical core that the process may use
  std::string cpus;  ///< CPU list such as "0-3,8"; empty: all that the process may use
  /// Where a GPU takes a part of the model: how many of its layers, the last ones, and the LM head
  /// with them; the cpu computes the others. 0: none; -1: as many as fit into the GPU's free
  /// memory.
  int64_t gpu_layers = -1;
  int64_t max_batch_tokens = 512;  ///< tokens computed in one step of prefill
  bool large_pages = true;         ///< ask the system for large pages
  /// On a machine of several memory nodes: "split" (each worker's weights on its own node),
  /// "interleave" (pages by turns over all), "local" (workers and memory on one node), "replicate"
  /// (a team and a whole copy of the model per node; sessions are shared out). Empty: split.
  std::string numa;
  bool rotate = true;  ///< int8 only: rotate the weights where the architecture allows it, so that
                       ///< int8 stays close to the file's values (docs/quality.md)
  std::string kv_format = "bf16";  ///< keys and values: "bf16", "int8" with a scale per
                                   ///< head, or "f16" on a GPU
  int64_t kv_memory_bytes = 0;  ///< for the keys and values of all sessions; 0: 131,072 tokens or
                                ///< two full contexts, at most a quarter of the machine's memory
  /// Where the weights lie: "map" (packed files stay mapped and are read in place), "copy" (in
  /// each worker's own memory), "hugetlb" (the same on the large pages that the administrator set
  /// aside), or "auto": map where the file is packed and all workers share a memory node.
  std::string memory = "auto";
  bool lock_memory = false;  ///< keep the weights from being swapped out (mlock), within the limits
  /// A folder for packed copies of GGUF models, so that the next open maps instead of quantizing;
  /// made where it is missing. Empty (default): none is made, and nothing is written anywhere.
  std::string cache_folder;
  int64_t cache_bytes = int64_t{64} << 30;  ///< the most that folder may hold; the copies used
                                            ///< longest ago go first
  /// Receives log lines: level 0 debug, 1 info, 2 warning, 3 error. May be empty.
  std::function<void(int level, std::string_view line)> log;
  /// Receives a stage and a fraction in [0, 1]; return false to cancel. May be empty.
  std::function<bool(std::string_view stage, double fraction)> progress;
};

/// The shape of a model of random weights, for benchmarks.
struct SyntheticShape {
  int64_t d_model = 2048;
  int64_t d_ff = 8192;
  int64_t n_layers = 16;
  int64_t n_heads = 32;
  int64_t n_kv_heads = 8;
  int64_t head_dim = 64;
  int64_t vocab = 49152;
  uint64_t seed = 1;
};

struct TensorInfo {
  std::string name;
  std::string type;            // "Q4_1", …
  std::vector<int64_t> shape;  // row-major, last dimension fastest
  int64_t bytes = 0;
};

/// What one device has of a model that two devices share by layers.
struct ModelPart {
  std::string device;
  int64_t layers = 0;
  int64_t weight_bytes = 0;
  int64_t bytes_per_token = 0;     // read by one decode step at depth 0
  int64_t kv_bytes_per_token = 0;  // taken in its memory by each token
};

struct ModelInfo {
  std::string architecture;
  std::string name;
  int64_t vocab_size = 0, d_model = 0, d_ff = 0, n_layers = 0, n_heads = 0, n_kv_heads = 0;
  int64_t head_dim = 0, rotary_dim = 0, context_length = 0;
  float rms_norm_eps = 0, rope_base = 0;
  bool tied_lm_head = false;
  bool rotated = false;   // the weights are rotated (OpenOptions::rotate)
  std::string tokenizer;  // "bpe (smollm)", "spm (llama)", or empty
  bool has_chat_template = false;
  int64_t parameters = 0;
  int64_t file_bytes = 0;       // 0 for a synthetic model
  std::string scheme;           // how the weights are held: OpenOptions::scheme
  int64_t weight_bytes = 0;     // packed, in memory; predicted where the model is only inspected
  int64_t bytes_per_token = 0;  // read by one decode step at depth 0
  int64_t ops_per_token = 0;    // of its linears but the LM head; a multiply-add is two
  int64_t kv_bytes_per_token = 0;
  std::string packed_file;  // the packed file that the weights came from: the model, its copy in
                            // the cache, or empty
  std::string memory;       // of a loaded model: OpenOptions::memory as it came out
  std::vector<ModelPart> parts;  // of a loaded model, in the order in which a step meets them;
                                 // empty: one device has all
  std::vector<TensorInfo> tensors;
};

/// One row of what computes int8 matmuls of the tier in use: from so many tokens of a step, outputs
/// and inputs of one worker on, until a later row holds too.
struct KernelChoice {
  int64_t tokens_from = 1;
  int64_t outputs_from = 1;
  int64_t inputs_from = 1;
  std::string kernel;  ///< by its name, or "onednn"
  std::string note;    ///< "measured: ..." or "reasoned: ..."
};

struct MachineInfo {
  std::string cpu;               // the processor's own name
  std::vector<std::string> isa;  // kernel tiers that run here, best first
  std::string isa_used;
  std::vector<KernelChoice> kernels;
  int packages = 1, numa_nodes = 1, cores = 1, workers = 1;
  std::vector<int> cpus;  // where the workers are pinned
  int64_t memory_bytes = 0;
  std::string device;               // the name of what computes: the processor's, or a GPU's
  int64_t device_memory_bytes = 0;  // where weights lie: the machine's, or a GPU's own
  std::vector<std::string> notes;
};

/// Where the weights lie and who reads them, asked of the kernel page by page.
struct PlacementInfo {
  struct Node {
    int node = 0;              // as the system counts memory nodes
    int workers = 0;           // whose own node it is
    int64_t weight_bytes = 0;  // that lie on it
  };
  std::string policy;         // OpenOptions::numa
  bool known = false;         // false: the kernel does not tell, or the device has no such nodes
  bool bound = true;          // false: the system refuses to bind memory to nodes
  std::vector<Node> nodes;    // that have weights or workers
  int64_t local_bytes = 0;    // on the node of the worker that reads them
  int64_t remote_bytes = 0;   // on another
  int64_t nowhere_bytes = 0;  // not in memory now (a mapped file not read yet), or unknown
  int64_t remote_bytes_per_step = 0;  // read from another node by one decode step
};

/// What a machine can do at best, measured; 0 where the device cannot tell.
struct MachineCeilings {
  /// What the kernels of linears make of so many tokens where memory does not bind.
  struct Kernel {
    std::string scheme;  // of the weights: "int8", "int4-g128"
    int64_t tokens = 0;
    double tops = 0;  // 1e12 operations/s
  };
  double read_gbps = 0;  // memory, all workers streaming, 1e9 bytes/s
  double int8_tops = 0;  // multiply-adds from registers, 1e12 operations/s (a multiply-add is two)
  double fp16_tflops = 0;  // the same in 16 bits with float32 sums
  double fp32_tflops = 0;  // the same in float32
  double host_gbps = 0;    // from the host's memory to a device's
  std::vector<Kernel> kernels;
};

/// Which kernels to measure: of each scheme with each number of tokens.
struct KernelQuestion {
  std::vector<std::string> schemes;
  std::vector<int64_t> tokens;
};

struct GenerateOptions {
  int64_t max_tokens = 256;     ///< most tokens to generate; -1: until the context is full
  float temperature = 0.8F;     ///< 0: greedy
  int32_t top_k = 40;           ///< keep the k likeliest; 0: all
  float top_p = 0.95F;          ///< keep the least set of at least this mass; 1: all
  float min_p = 0.05F;          ///< drop what is below this fraction of the likeliest; 0: none
  float repeat_penalty = 1.0F;  ///< divide/multiply logits of recent tokens; 1: off
  int32_t repeat_window = 64;   ///< how many recent tokens the penalty sees
  uint64_t seed = 0;            ///< 0: from the system's entropy
  bool ignore_end = false;      ///< go on behind an end-of-text token
  bool add_special = true;      ///< bos as the vocabulary says
  bool parse_special = false;   ///< recognise control tokens written out in the prompt
};

enum class FinishReason { stop, length, context_full, cancelled };
QLLM_API std::string_view to_string(FinishReason reason);

struct GenerateResult {
  std::string text;
  std::vector<int32_t> ids;   // generated, the end token excluded
  int64_t prompt_tokens = 0;  // of the whole prompt
  int64_t reused_tokens = 0;  // of them, found in the KV cache, this session's or another's
  int64_t generated_tokens = 0;
  double ttft_s = 0;    // call to first token
  double decode_s = 0;  // first token to last
  FinishReason finish_reason = FinishReason::stop;
};

class ModelImpl;
class SessionImpl;

/// A loaded model. Cheap to copy: copies share it.
class QLLM_API Model {
 public:
  /// Loads a GGUF or a packed (.qllm) file. Throws Error (io, bad_format, unsupported,
  /// out_of_memory, …).
  static Model open(const std::string& path, const OpenOptions& options = {});
  /// A model of random weights; it has no tokenizer.
  static Model synthetic(const SyntheticShape& shape, const OpenOptions& options = {});

  ModelInfo info() const;
  MachineInfo machine() const;
  /// Asks the kernel where each page is now: some 0.1 s per GB.
  PlacementInfo placement() const;

  bool has_tokenizer() const;
  std::vector<int32_t> tokenize(std::string_view text, bool add_special = true,
                                bool parse_special = false) const;
  std::string detokenize(std::span<const int32_t> ids, bool special = false) const;
  /// Renders a conversation with the model's own template, ready to be tokenized with
  /// parse_special and without add_special where the template writes bos itself.
  std::string render_chat(std::span<const ChatMessage> messages,
                          bool add_generation_prompt = true) const;
  /// Read bandwidth of the model's workers now, in GB/s (1e9 bytes/s): the ceiling of decode.
  /// `bytes`: how much is streamed, at least 64 MiB.
  double measure_read_gbps(int64_t bytes = int64_t{512} << 20) const;
  /// The same of each of ModelInfo::parts, at whose joint rate measure_read_gbps() is.
  std::vector<double> measure_parts_gbps(int64_t bytes = int64_t{512} << 20) const;
  /// Seconds that each of ModelInfo::parts has computed so far.
  std::vector<double> part_seconds() const;
  /// Int8 arithmetic of the model's workers now, on registers alone, in 1e12 operations a second (a
  /// multiply-add is two): the ceiling of prefill. 0 where the device cannot tell.
  double measure_peak_tops() const;
  /// All ceilings of the model's workers now, once each.
  MachineCeilings measure_ceilings(const KernelQuestion& kernels = {}) const;

 private:
  friend class Session;
  friend class StepTimer;
  friend class Trace;
  explicit Model(std::shared_ptr<ModelImpl> impl);
  std::shared_ptr<ModelImpl> impl_;
};

/// Looks at a model without loading its weights, as `options` would load them: what `qllm info`
/// shows.
QLLM_API ModelInfo inspect_model(const std::string& path, const OpenOptions& options = {});
/// Compares all of a packed file with its checksums. Throws bad_format naming the first tensor that
/// is damaged.
QLLM_API void verify_packed(const std::string& path);

struct QuantizeResult {
  int64_t bytes = 0;               // of the file
  std::vector<TensorInfo> layers;  // the packed tensors, in order
};
/// Writes a GGUF file as a packed one, as `options` (scheme, rotate, threads, …) would load it. The
/// file appears whole or not at all; needs the memory of about one tensor. Throws io (a full disk,
/// another process that writes the same file), cancelled, and what Model::open throws.
QLLM_API QuantizeResult quantize_model(const std::string& path, const std::string& out,
                                       const OpenOptions& options = {});
/// $XDG_CACHE_HOME/qllm, else $HOME/.cache/qllm: what the program gives OpenOptions::cache_folder.
/// Empty where neither is set.
QLLM_API std::string default_cache_folder();

/// The tokenizer of a model file alone, as tokenize() and detokenize() of a Model.
class QLLM_API Vocabulary {
 public:
  static Vocabulary open(const std::string& path);
  std::vector<int32_t> tokenize(std::string_view text, bool add_special = true,
                                bool parse_special = false) const;
  std::string detokenize(std::span<const int32_t> ids, bool special = false) const;
  std::string render_chat(std::span<const ChatMessage> messages,
                          bool add_generation_prompt = true) const;

 private:
  struct Impl;
  std::shared_ptr<const Impl> impl_;
};
/// Looks at the machine as `options` would use it.
QLLM_API MachineInfo inspect_machine(const OpenOptions& options = {});
/// Measures the device and the workers that `options` name, the best of three; takes about a
/// second.
QLLM_API MachineCeilings measure_machine(const OpenOptions& options = {},
                                         const KernelQuestion& kernels = {});

/// One sequence and its KV cache. Callbacks run on the caller's thread; what they throw comes
/// through.
class QLLM_API Session {
 public:
  /// `max_context`: most tokens the cache will hold, whose memory is taken as it grows; 0: the
  /// model's context length, at most 4096.
  /// Throws invalid_argument beyond the model's context length.
  explicit Session(const Model& model, int64_t max_context = 0);
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  /// Receives complete UTF-8 text as it is made; return false to stop.
  using TextFn = std::function<bool(std::string_view text)>;
  /// Completes `prompt`. What the cache already holds of it (a common prefix), and whole blocks of
  /// 64 tokens that any session of the model has computed for the same beginning, are not computed
  /// again. Throws invalid_argument for an empty prompt, context_full for one longer than the
  /// context, out_of_memory where all sessions together have filled the KV memory.
  GenerateResult generate(std::string_view prompt, const GenerateOptions& options,
                          const TextFn& on_text = {});
  GenerateResult generate_ids(std::span<const int32_t> ids, const GenerateOptions& options,
                              const TextFn& on_text = {});

  /// Receives logits of tokens [first, first+count): [count, vocab]. Return false to stop.
  using LogitsFn = std::function<bool(int64_t first, int64_t count, std::span<const float> logits)>;
  /// Forgets the cache, evaluates all ids and hands out the logits of each, some tokens at a time.
  void evaluate(std::span<const int32_t> ids, const LogitsFn& on_logits);

  /// Computes ids behind the cache without logits, in steps of max_batch_tokens: for benchmarks.
  void prefill(std::span<const int32_t> ids);
  /// One decode step of one token, without sampling: for benchmarks.
  void decode(int32_t id);

  /// One decode step of several sessions of one model in one pass over its weights: ids[i] goes
  /// behind sessions[i], logits [sessions, vocab] are those of each. Throws invalid_argument for
  /// none, more than 64, the same twice or of different models, ids or logits of another length;
  /// context_full where one has no room (all before anything is changed).
  static void decode_together(std::span<Session* const> sessions, std::span<const int32_t> ids,
                              std::span<float> logits);

  /// Writes what the cache holds to a file, whole or not at all, readable by its owner alone: it
  /// holds the text. Throws io.
  void save(const std::string& path) const;
  /// Takes up what save() wrote, in place of what the cache holds; of the same model, scheme,
  /// device and KV format. Throws not_found, io, bad_format (a damaged file), unsupported (another
  /// version), invalid_argument (another model or format), context_full, out_of_memory; the session
  /// is then as before. Only from files that you trust to be your own: keys and values cannot be
  /// checked against the text.
  void restore(const std::string& path);

  std::vector<int32_t> tokens() const;  // in the cache
  int64_t position() const;             // how many
  int64_t max_context() const;
  void reset();  // forgets all
  /// Forgets what lies behind the first `position` tokens, in no time: to answer again, to change
  /// the end of a text. Throws invalid_argument beyond position() or below 0.
  void truncate(int64_t position);
  /// Stops generate(), evaluate() or prefill() at the next step, from any thread or a signal
  /// handler; said while none runs, it stops the next one.
  void cancel() noexcept;

 private:
  std::unique_ptr<SessionImpl> impl_;
};

}  // namespace qllm
