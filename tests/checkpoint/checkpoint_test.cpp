#include <attend/checkpoint.h>
#include <attend/nn/attention.h>
#include <attend/plot.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <locale>
#include <new>
#include <random>

#include "checkpoint_files.h"
#include "support.h"

// Counts the allocated bytes: a reader must not allocate much more memory than the size of the file.
namespace {
std::atomic<size_t> allocated = 0;
}

// These functions are not inlined, because the compiler would warn about malloc and free in inlined code.
[[gnu::noinline]] void* operator new(size_t size) {
  allocated += size;
  if (void* const memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(size_t size, const std::nothrow_t&) noexcept {
  allocated += size;
  return std::malloc(size);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace {

/// Counts the data of tensors, which operator new does not allocate.
class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t size) override {
    allocated += size;
    return inner_->allocate(size);
  }
  c10::DeleterFnPtr raw_deleter() const override { return inner_->raw_deleter(); }
  void copy_data(void* to, const void* from, size_t size) const override {
    inner_->copy_data(to, from, size);
  }

 private:
  c10::Allocator* inner_ = c10::GetAllocator(c10::kCPU);
};

}  // namespace

namespace attend::testing {
namespace {

namespace fs = std::filesystem;

class CheckpointTest : public ::testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(0);
    folder_ = fs::temp_directory_path() / fmt::format("attend_checkpoint_{}", getpid());
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }

 private:
  fs::path folder_;
};

/// Returns the values of a sparse or quantized tensor as a dense tensor.
torch::Tensor dense(const torch::Tensor& tensor) {
  const auto values = tensor.is_quantized() ? tensor.dequantize() : tensor;
  return values.layout() == torch::kStrided ? values : values.to_dense();
}

bool same_bytes(const torch::Tensor& left, const torch::Tensor& right) {
  return left.nbytes() == right.nbytes() &&
         std::memcmp(left.const_data_ptr(), right.const_data_ptr(), left.nbytes()) == 0;
}

std::string safetensors_error(const std::string& file) {
  return error_of([&] { parse_safetensors(bytes_of(file)); });
}

std::string pytorch_error(const std::string& name) {
  auto message = error_of([&] { load_pytorch(recorded(name)); });
  const auto folder = recorded("");
  const auto at = message.find(folder);
  return at == std::string::npos ? message : message.erase(at, folder.size());
}

/// Checks the tensors that tests/record/record_checkpoints.py writes: 0, 1, ... 5 as [2, 3] in each dtype,
/// modulo 2 for bool.
void expect_every_dtype(const StateDict& checkpoint) {
  EXPECT_EQ(checkpoint.tensors.size(), 16U);
  for (const auto& item : checkpoint.tensors) {
    SCOPED_TRACE(item.key());
    const auto& tensor = item.value();
    EXPECT_EQ(c10::getDtypeNames(tensor.scalar_type()).first, item.key());
    const auto expected = torch::arange(6, torch::kDouble).view({2, 3});
    const auto values = tensor.is_complex() ? torch::real(tensor) : tensor;
    EXPECT_TRUE(
        torch::equal(values.to(torch::kDouble), item.key() == "bool" ? expected.remainder(2) : expected));
  }
}

// ---- safetensors

TEST_F(CheckpointTest, ReadsSafetensorsOfPython) {
  const auto checkpoint = load_safetensors(recorded("every_dtype.safetensors"));
  expect_every_dtype(checkpoint);
  const std::map<std::string, std::string> metadata = {{"format", "pt"}, {"é", "ü\n"}};
  EXPECT_EQ(checkpoint.metadata, metadata);
}

TEST_F(CheckpointTest, WritesWhatItReads) {
  auto saved = load_safetensors(recorded("every_dtype.safetensors"));
  saved.tensors.insert("strided", torch::arange(12).view({3, 4}).t());
  saved.tensors.insert("scalar \"quoted\"\n", torch::tensor(2.5));
  saved.tensors.insert("empty", torch::empty({0, 3}));
  saved.tensors.insert("conjugated", torch::conj(torch::complex(torch::ones(2), torch::ones(2))));
  save_safetensors(saved, path("all"));
  const auto loaded = load_safetensors(path("all"));
  EXPECT_EQ(loaded.metadata, saved.metadata);
  EXPECT_EQ(loaded.tensors.keys(), saved.tensors.keys());
  for (const auto& item : saved.tensors) {
    const auto& tensor = loaded.tensors[item.key()];
    EXPECT_EQ(tensor.scalar_type(), item.value().scalar_type()) << item.key();
    EXPECT_EQ(tensor.sizes(), item.value().sizes()) << item.key();
    EXPECT_TRUE(torch::equal(tensor.contiguous().view(-1).view(torch::kByte),
                             item.value().contiguous().resolve_conj().view(-1).view(torch::kByte)))
        << item.key();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % tensor.element_size(), 0U) << item.key();
  }
  save_safetensors({}, path("none"));
  EXPECT_TRUE(load_safetensors(path("none")).tensors.is_empty());
}

TEST_F(CheckpointTest, WritingToALoadedTensorLeavesTheFile) {
  save_safetensors({{{{"a", torch::ones(4)}}}}, path("file"));
  const auto before = content_of(path("file"));
  auto loaded = load_safetensors(path("file")).tensors["a"];
  loaded.fill_(3);
  EXPECT_EQ(loaded.sum().item<float>(), 12);
  EXPECT_EQ(content_of(path("file")), before);
  // The old contents remain readable after the file was replaced.
  save_safetensors({{{{"a", loaded * 2}}}}, path("file"));
  EXPECT_EQ(loaded.sum().item<float>(), 12);
  EXPECT_EQ(load_safetensors(path("file")).tensors["a"].sum().item<float>(), 24);
}

TEST_F(CheckpointTest, UnalignedTensorsAreCopied) {
  const std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("b":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})";
  const std::array<float, 2> values = {1.5F, -2};
  std::string data = "x";
  data.append(reinterpret_cast<const char*>(&values), sizeof values);
  const auto checkpoint = parse_safetensors(bytes_of(file_of(header, data)));
  EXPECT_TRUE(torch::equal(checkpoint.tensors["b"], torch::tensor({1.5F, -2.0F})));
}

TEST_F(CheckpointTest, NonzeroBytesAreTrue) {
  const auto checkpoint = parse_safetensors(bytes_of(
      file_of(R"({"a":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}})", std::string("\0\x02\xff", 3))));
  EXPECT_TRUE(torch::equal(checkpoint.tensors["a"].to(torch::kByte), torch::tensor({0, 1, 1}, torch::kByte)));
}

TEST_F(CheckpointTest, AgreesWithTheReferenceReaderOnDamagedFiles) {
  const auto records = content_of(recorded("verdicts.bin"));
  int count = 0, accepted = 0;
  for (size_t at = 0; at < records.size(); ++count) {
    const bool verdict = records.at(at) != 0;
    uint32_t length = 0;
    std::memcpy(&length, records.data() + at + 1, sizeof(length));
    const auto file = records.substr(at + 5, length);
    at += 5 + length;
    bool is_accepted = true;
    try {
      parse_safetensors(bytes_of(file));
    } catch (const c10::Error&) {
      is_accepted = false;
    }
    accepted += verdict ? 1 : 0;
    // The format requires the first character {, but the reference reader does not.
    const bool has_brace = file.size() > 8 && file[8] == '{';
    EXPECT_EQ(is_accepted, verdict && has_brace) << "file " << count << ": " << file;
  }
  EXPECT_GE(count, 400);
  EXPECT_GE(accepted, 7);
}

TEST_F(CheckpointTest, SafetensorsErrorsSayWhatIsWrong) {
  EXPECT_EQ(safetensors_error("1234567"),
            "attend::parse_safetensors: bytes: expected a safetensors file of at least 8 bytes, got 7 bytes");
  EXPECT_EQ(safetensors_error("\xff\xff\xff\xff\xff\xff\xff\xff"),
            "attend::parse_safetensors: bytes: expected a header of at most 100000000 bytes, got "
            "18446744073709551615; this is not a safetensors file");
  EXPECT_EQ(safetensors_error(file_of("{}").substr(0, 9)),
            "attend::parse_safetensors: bytes: expected a header of 2 bytes, got 1 bytes after its length");
  EXPECT_EQ(safetensors_error(file_of(" {}")),
            "attend::parse_safetensors: bytes: expected a header that begins with {, got \" \"");
  EXPECT_EQ(safetensors_error(file_of(std::string("{}\0", 3))),
            "attend::parse_safetensors: bytes: expected a JSON header, got a zero byte in it");
  EXPECT_EQ(
      safetensors_error(file_of(R"({"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}})", "xyz")),
      "attend::parse_safetensors: bytes: expected a known dtype for \"a\", got \"F6_E2M3\"");
  EXPECT_EQ(
      safetensors_error(file_of(R"({"a":{"dtype":"F4","shape":[2,3],"data_offsets":[0,3]}})", "xyz")),
      "attend::parse_safetensors: bytes: expected dtype, shape and data_offsets in the entry \"a\", got F4 "
      "with an odd number of elements in a row");
  EXPECT_EQ(safetensors_error(file_of(R"({"a":1,"a":1})")),
            "attend::parse_safetensors: bytes: expected an object as the entry \"a\", got a number");
  const std::string entry = R"({"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  EXPECT_EQ(safetensors_error(file_of(R"({"a":)" + entry + R"(,"a":)" + entry + "}")),
            "attend::parse_safetensors: bytes: expected unique keys in the header, got a duplicate \"a\"");
  EXPECT_EQ(safetensors_error(file_of(R"({"__metadata__":{"k":"1","k":"2"}})")),
            "attend::parse_safetensors: bytes: expected unique keys in the header, got a duplicate \"k\"");
  EXPECT_EQ(
      safetensors_error(file_of(R"({"a":{"dtype":"U8","shape":[0],"shape":[0],"data_offsets":[0,0]}})")),
      "attend::parse_safetensors: bytes: expected unique keys in the header, got a duplicate \"shape\"");
  EXPECT_EQ(
      safetensors_error(file_of(R"({"a":{"dtype":"U8","shape":[0]}})")),
      "attend::parse_safetensors: bytes: expected dtype, shape and data_offsets in the entry \"a\", got an "
      "entry without data_offsets");
  EXPECT_EQ(safetensors_error(file_of(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "xyz")),
            "attend::parse_safetensors: bytes: expected 2 bytes of data, got 3 bytes");
  EXPECT_EQ(safetensors_error(
                file_of(R"({"a":{"dtype":"F64","shape":[0,4611686018427387904],"data_offsets":[0,0]}})")),
            "attend::parse_safetensors: bytes: expected a size below 2^63 bytes for \"a\", got the shape 0 "
            "4611686018427387904");
  EXPECT_EQ(error_of([] { parse_safetensors(torch::zeros({2})); }),
            "attend::parse_safetensors: bytes: expected uint8 [N] on the CPU, got float32 [2] on cpu");
  EXPECT_EQ(error_of([] { load_safetensors("/nowhere/file"); }),
            "attend::load_safetensors: /nowhere/file: expected a readable file, got No such file or "
            "directory");
  EXPECT_EQ(error_of([] { load_safetensors("/tmp"); }),
            "attend::load_safetensors: /tmp: expected a regular file, got a directory or special file");
}

// The memory for a deeply nested header must be in proportion to its length.
TEST_F(CheckpointTest, DeepHeadersAreRejected) {
  const auto deep = file_of("{\"a\":" + std::string(1'000'000, '['));
  EXPECT_NE(safetensors_error(deep).find("expected an object as the entry"), std::string::npos);
  const auto nested = file_of(R"({"__metadata__":{"a":)" + std::string(1'000'000, '{'));
  EXPECT_NE(safetensors_error(nested).find("expected a string as each value"), std::string::npos);
}

/// The header that Python's safetensors 0.8.0 writes for float4_e2m1fn_x2 [2, 2] has the shape [2, 4].
TEST_F(CheckpointTest, ReadsAndWritesPackedElements) {
  const auto file = file_of(R"({"a":{"dtype":"F4","shape":[2,4],"data_offsets":[0,4]}})", "\x01\x23\x45\x67");
  const auto loaded = parse_safetensors(bytes_of(file));
  EXPECT_EQ(loaded.tensors["a"].scalar_type(), c10::ScalarType::Float4_e2m1fn_x2);
  EXPECT_EQ(loaded.tensors["a"].sizes(), (std::vector<int64_t>{2, 2}));
  save_safetensors(loaded, path("packed"));
  EXPECT_NE(content_of(path("packed")).find(R"("dtype":"F4","shape":[2,4],"data_offsets":[0,4])"),
            std::string::npos);
  EXPECT_TRUE(same_bytes(load_safetensors(path("packed")).tensors["a"], loaded.tensors["a"]));
}

TEST_F(CheckpointTest, ReadsAndWritesEveryKindOfFloat8) {
  for (const auto dtype :
       {torch::kFloat8_e4m3fn, torch::kFloat8_e4m3fnuz, torch::kFloat8_e5m2, torch::kFloat8_e5m2fnuz}) {
    const auto saved = torch::arange(6.0F).to(dtype);
    save_safetensors({{{{"a", saved}}}}, path("float8"));
    const auto loaded = load_safetensors(path("float8")).tensors["a"];
    EXPECT_EQ(loaded.scalar_type(), dtype);
    EXPECT_TRUE(same_bytes(loaded, saved));
  }
}

TEST_F(CheckpointTest, SavingRejectsWhatTheFormatLacks) {
  const auto error = [&](const std::string& name, const torch::Tensor& tensor) {
    return error_of([&] { save_safetensors({{{{name, tensor}}}}, path("rejected")); });
  };
  EXPECT_EQ(error("a", {}),
            "attend::save_safetensors: tensor \"a\": expected a tensor, got an undefined tensor");
  EXPECT_EQ(
      error("__metadata__", torch::ones(1)),
      "attend::save_safetensors: tensor \"__metadata__\": expected a name other than that of the metadata, "
      "got the same name");
  EXPECT_EQ(
      error("a", torch::ones(1, torch::kComplexDouble)),
      "attend::save_safetensors: tensor \"a\": expected a dtype that safetensors has, got complex128 [1]");
  EXPECT_EQ(
      error("a", torch::ones(1).expand({int64_t{1} << 40})),
      "attend::save_safetensors: tensor \"a\": expected a tensor whose elements do not share memory "
      "(contiguous() makes one), got float32 [1099511627776], 1099511627776 elements in the memory of 1");
  EXPECT_EQ(error("a", torch::ones(8).as_strided({3, 4}, {2, 1})),
            "attend::save_safetensors: tensor \"a\": expected a tensor whose elements do not share memory "
            "(contiguous() makes one), got float32 [3, 4], 12 elements in the memory of 8");
  EXPECT_EQ(
      error("a", torch::ones(1, torch::kMeta)),
      "attend::save_safetensors: tensor \"a\": expected a tensor with data, got a tensor on the meta device");
  EXPECT_EQ(error("\xff", torch::ones(1)),
            "attend::save_safetensors: state_dict: expected names and metadata in UTF-8, got text that is "
            "not UTF-8");
  EXPECT_EQ(error_of([] { save_safetensors({}, "/nowhere/file"); }),
            "attend::save_safetensors: /nowhere/file: expected a writable file, got No such file or "
            "directory");
  EXPECT_FALSE(fs::exists(path("rejected")));
}

// ---- saving is atomic

/// Limits the size of files that the process writes during its lifetime, as a full disk does.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit lower = {bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &lower);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_ = {};
  void (*handler_)(int) = nullptr;
};

TEST_F(CheckpointTest, AFailedSaveLeavesTheOldFileAndNothingElse) {
  save_safetensors({{{{"a", torch::ones(4)}}}}, path("file"));
  {
    const FileSizeLimit limit(100'000);
    EXPECT_EQ(error_of([&] { save_safetensors({{{{"a", torch::zeros(100'000)}}}}, path("file")); }),
              "attend::save_safetensors: " + path("file") + ": expected a writable file, got File too large");
  }
  EXPECT_EQ(load_safetensors(path("file")).tensors["a"].sum().item<float>(), 4);
  EXPECT_EQ(std::distance(fs::directory_iterator(path("")), fs::directory_iterator()), 1);
}

TEST_F(CheckpointTest, SavingThroughALinkReplacesItsTarget) {
  save_safetensors({}, path("target"));
  fs::create_symlink("target", path("link"));
  save_safetensors({{{{"a", torch::ones(4)}}}}, path("link"));
  EXPECT_TRUE(fs::is_symlink(path("link")));
  EXPECT_EQ(load_safetensors(path("target")).tensors.size(), 1U);
}

TEST_F(CheckpointTest, SavingThroughALinkCreatesItsTarget) {
  fs::create_symlink("later", path("first"));
  fs::create_symlink("first", path("second"));
  save_safetensors({{{{"a", torch::ones(4)}}}}, path("second"));
  EXPECT_TRUE(fs::is_symlink(path("second")));
  EXPECT_EQ(load_safetensors(path("later")).tensors.size(), 1U);
}

TEST_F(CheckpointTest, SavingKeepsThePermissions) {
  save_safetensors({}, path("file"));
  fs::permissions(path("file"), fs::perms::owner_read | fs::perms::owner_write);
  save_safetensors({{{{"a", torch::ones(4)}}}}, path("file"));
  EXPECT_EQ(fs::status(path("file")).permissions(), fs::perms::owner_read | fs::perms::owner_write);
}

/// A locale with thousands separators, as desktop programs may set.
class GroupedDigits : public std::numpunct<char> {
  char do_thousands_sep() const override { return ','; }
  std::string do_grouping() const override { return "\3"; }
};

TEST_F(CheckpointTest, TheLocaleHasNoEffect) {
  const auto before = std::locale::global(std::locale(std::locale::classic(), new GroupedDigits));
  save_safetensors({{{{"a", torch::ones({100, 100})}}}}, path("file"));
  const auto svg = attention_svg(torch::full({1, 100}, 0.5));
  std::locale::global(before);
  EXPECT_EQ(load_safetensors(path("file")).tensors["a"].sum().item<float>(), 10'000);
  EXPECT_NE(svg.find("width=\"1428\""), std::string::npos) << svg.substr(0, 200);
}

/// Saves the two state dicts alternately until the process is killed.
[[noreturn]] void save_forever(const std::array<StateDict, 2>& checkpoints, const std::string& path) {
  for (size_t n = 0;; ++n) save_safetensors(checkpoints.at(n % 2), path);
}

TEST_F(CheckpointTest, AKillAtAnyMomentLeavesAWholeFile) {
  // Created before the fork, because OpenMP does not work in the child.
  const std::array<StateDict, 2> checkpoints = {
      {{{{{"a", torch::zeros(50'000)}}}}, {{{{"a", torch::ones(50'000)}}}}}};
  save_safetensors(checkpoints[0], path("file"));
  std::mt19937 random(0);
  int changed = 0;
  for (int n = 0; n < 100; ++n) {
    const auto before = fs::last_write_time(path("file"));
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) save_forever(checkpoints, path("file"));
    usleep(std::uniform_int_distribution<unsigned>(0, 30'000)(random));
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    const auto tensor = load_safetensors(path("file")).tensors["a"].to(torch::kDouble);
    EXPECT_EQ(tensor.numel(), 50'000);
    EXPECT_EQ(tensor.min().item<double>(), tensor.max().item<double>());
    changed += fs::last_write_time(path("file")) != before ? 1 : 0;
  }
  EXPECT_GE(changed, 10) << "the child was killed before it wrote";
}

// ---- files of torch.save

void expect_module(const StateDict& checkpoint) {
  const std::vector<std::string> names = {"first.weight",
                                          "first.bias",
                                          "norm.weight",
                                          "norm.bias",
                                          "norm.running_mean",
                                          "norm.running_var",
                                          "norm.num_batches_tracked"};
  EXPECT_EQ(checkpoint.tensors.keys(), names);
  EXPECT_TRUE(torch::equal(checkpoint.tensors["first.weight"], torch::arange(6.0F).view({2, 3})));
  EXPECT_TRUE(torch::equal(checkpoint.tensors["norm.bias"], torch::tensor({300.0F, 301.0F})));
  EXPECT_TRUE(torch::equal(checkpoint.tensors["norm.num_batches_tracked"], torch::tensor(int64_t{0})));
}

TEST_F(CheckpointTest, ReadsAStateDictOfPython) {
  expect_module(load_pytorch(recorded("module.pt")));
  expect_module(load_pytorch(recorded("protocol4.pt")));
  expect_module(parse_pytorch(bytes_of(content_of(recorded("module.pt")))));
  expect_every_dtype(load_pytorch(recorded("every_dtype.pt")));
}

TEST_F(CheckpointTest, ReadsStridesAndSharedStorages) {
  const auto loaded = load_pytorch(recorded("shared.pt")).tensors;
  const auto matrix = torch::arange(12.0F).view({3, 4});
  EXPECT_TRUE(torch::equal(loaded["matrix"], matrix));
  EXPECT_TRUE(torch::equal(loaded["transposed"], matrix.t()));
  EXPECT_EQ(loaded["transposed"].strides(), (std::vector<int64_t>{1, 4}));
  EXPECT_TRUE(torch::equal(loaded["row"], matrix[1]));
  EXPECT_TRUE(torch::equal(loaded["expanded"], torch::ones(5)));
  EXPECT_TRUE(torch::equal(loaded["scalar"], torch::tensor(7.0F)));
  EXPECT_EQ(loaded["empty"].sizes(), (std::vector<int64_t>{0, 3}));
  loaded["matrix"][1][2] = -1;
  EXPECT_EQ(loaded["transposed"][2][1].item<float>(), -1);
  EXPECT_EQ(loaded["row"][2].item<float>(), -1);
  EXPECT_EQ(loaded["tied"][1][2].item<float>(), -1);
}

TEST_F(CheckpointTest, ReadsConjugateAndNegativeBits) {
  const auto loaded = load_pytorch(recorded("conjugated.pt")).tensors;
  EXPECT_TRUE(torch::equal(torch::view_as_real(loaded["conjugate"].resolve_conj()),
                           torch::tensor({{1.0F, -2.0F}, {3.0F, 4.0F}})));
  EXPECT_TRUE(torch::equal(loaded["negative"], torch::tensor({-2.0F, 4.0F})));
  save_safetensors({loaded}, path("file"));
  EXPECT_TRUE(torch::equal(load_safetensors(path("file")).tensors["negative"], torch::tensor({-2.0F, 4.0F})));
}

/// A storage must be converted only once: otherwise a short pickle could request any number of copies of it.
TEST_F(CheckpointTest, BooleansOfOneStorageShareMemory) {
  const auto loaded = load_pytorch(recorded("booleans.pt")).tensors;
  EXPECT_TRUE(torch::equal(loaded["some"], torch::tensor({false, true, true})));
  EXPECT_TRUE(loaded["same"].is_alias_of(loaded["some"]));
}

TEST_F(CheckpointTest, ReadsNestedDictionaries) {
  const auto checkpoint = load_pytorch(recorded("nested.pt"));
  const std::vector<std::string> names = {"model.weight", "optimizer.state.0.step", "list.0", "list.1"};
  EXPECT_EQ(checkpoint.tensors.keys(), names);
  EXPECT_EQ(checkpoint.tensors["optimizer.state.0.step"].item<int64_t>(), 5);
}

/// expected.safetensors holds, for each file, the tensors that Python's torch.load(weights_only=True) finds
/// in it.
TEST_F(CheckpointTest, ReadsWhatTheRestrictedReaderOfPythonReads) {
  const auto recorded_tensors = load_safetensors(recorded("expected.safetensors")).tensors;
  std::map<std::string, std::map<std::string, torch::Tensor>> files;
  for (const auto& item : recorded_tensors) {
    const auto slash = item.key().find('/');
    files[item.key().substr(0, slash)].emplace(item.key().substr(slash + 1), item.value());
  }
  EXPECT_EQ(files.size(), 10U);
  for (const auto& [file, expected] : files) {
    SCOPED_TRACE(file);
    const auto loaded = load_pytorch(recorded(file + ".pt")).tensors;
    EXPECT_EQ(loaded.size(), expected.size());
    for (const auto& [name, tensor] : expected) {
      SCOPED_TRACE(name);
      ASSERT_TRUE(loaded.contains(name));
      const auto values = dense(loaded[name]);
      EXPECT_EQ(values.scalar_type(), tensor.scalar_type());
      EXPECT_EQ(values.sizes(), tensor.sizes());
      EXPECT_TRUE(same_bytes(values.contiguous(), tensor));
    }
  }
}

TEST_F(CheckpointTest, KindsOfTensorsAreKept) {
  for (const char* file : {"harmless.pt", "harmless_protocol5.pt", "legacy_harmless.pt"}) {
    SCOPED_TRACE(file);
    const auto loaded = load_pytorch(recorded(file)).tensors;
    EXPECT_EQ(loaded["coo"].layout(), torch::kSparse);
    EXPECT_TRUE(loaded["coo"].is_coalesced());
    EXPECT_FALSE(loaded["uncoalesced"].is_coalesced());
    EXPECT_EQ(loaded["csr"].layout(), torch::kSparseCsr);
    EXPECT_EQ(loaded["bsc"].layout(), torch::kSparseBsc);
    EXPECT_EQ(loaded["quantized"].scalar_type(), torch::kQUInt8);
    EXPECT_EQ(loaded["quantized"].q_zero_point(), 3);
    EXPECT_EQ(loaded["quantized_view"].sizes(), (std::vector<int64_t>{2, 2}));
    EXPECT_EQ(loaded["channels"].qscheme(), torch::kPerChannelAffine);
  }
}

TEST_F(CheckpointTest, LegacyStoragesAreSharedAndMapped) {
  auto loaded = load_pytorch(recorded("legacy_views.pt")).tensors;
  EXPECT_TRUE(torch::equal(loaded["whole"], torch::arange(1.0F, 6.0F)));
  EXPECT_TRUE(torch::equal(loaded["part"], torch::tensor({3.0F, 4.0F})));
  loaded["whole"][2] = -1;
  EXPECT_EQ(loaded["part"][0].item<float>(), -1);
}

TEST_F(CheckpointTest, SparseAndQuantizedTensorsLoadIntoAModule) {
  torch::nn::Module module;
  module.register_parameter("coo", torch::zeros({4, 4}));
  module.register_parameter("channels", torch::zeros({2, 3}, torch::kDouble));
  load_state_dict(module, load_pytorch(recorded("harmless.pt")), {.strict = false});
  const auto expected = load_safetensors(recorded("expected.safetensors")).tensors;
  EXPECT_TRUE(torch::equal(module.named_parameters()["coo"], expected["harmless/coo"]));
  EXPECT_TRUE(
      torch::equal(module.named_parameters()["channels"], expected["harmless/channels"].to(torch::kDouble)));
}

TEST_F(CheckpointTest, PytorchErrorsSayWhatIsWrong) {
  EXPECT_EQ(pytorch_error("runs_code.pt"),
            "attend::load_pytorch: runs_code.pt: expected tensors only, as in "
            "torch.save(model.state_dict(), path), "
            "got a pickle that refers to \"posix.system\"");
  EXPECT_EQ(
      pytorch_error("whole_module.pt"),
      "attend::load_pytorch: whole_module.pt: expected tensors only, as in torch.save(model.state_dict(), "
      "path), got a pickle that refers to \"torch.nn.modules.linear.Linear\"");
  EXPECT_EQ(pytorch_error("tensor.pt"),
            "attend::load_pytorch: tensor.pt: expected a pickled dictionary of tensors, got a tensor");
  EXPECT_EQ(
      error_of([] { parse_pytorch(bytes_of("nothing of the kind")); }),
      "attend::parse_pytorch: bytes: expected a zip archive, which torch.save writes since PyTorch 1.6, or "
      "the pickles from before, got neither");
  EXPECT_EQ(
      error_of([] { parse_pytorch(bytes_of(std::string(512, 'x').replace(257, 5, "ustar"))); }),
      "attend::parse_pytorch: bytes: expected a zip archive or the pickles of torch.save, got a tar archive, "
      "as PyTorch 0.1 wrote");
  EXPECT_FALSE(fs::exists("/tmp/attend_was_here"));
  const auto of_cpp = path("module_of_cpp.pt");
  torch::save(torch::nn::Linear(2, 3), of_cpp);
  EXPECT_EQ(error_of([&] { load_pytorch(of_cpp); }),
            "attend::load_pytorch: " + of_cpp +
                ": expected an archive that Python's torch.save wrote, got one that C++'s torch::save or "
                "torch.jit.save wrote; read it with torch::load");
}

TEST_F(CheckpointTest, PickleErrorsSayWhatIsWrong) {
  const auto error = [](const std::string& pickle) {
    const std::string prefix = "attend::parse_pytorch: bytes: ";
    const auto message = error_of([&] { parse_pytorch(bytes_of(archive_of(pickle))); });
    EXPECT_TRUE(message.starts_with(prefix)) << message;
    return message.substr(prefix.size());
  };
  EXPECT_TRUE(parse_pytorch(bytes_of(archive_of("\x80\x02}."))).tensors.is_empty());
  EXPECT_EQ(error("\x80\x02}"), "expected a pickle of tensors, got a truncated pickle");
  EXPECT_EQ(error("."), "expected a pickle of tensors, got a stack underflow");
  EXPECT_EQ(error("}(."), "expected a pickle of tensors, got a stack underflow");
  EXPECT_EQ(error("a."), "expected a pickle of tensors, got a stack underflow");
  EXPECT_EQ(error("}\x85(\x86."), "expected a pickle of tensors, got a stack underflow");
  EXPECT_EQ(error("}u."), "expected a pickle of tensors, got an opcode that needs a MARK, without one");
  EXPECT_EQ(error("}h\x07."),
            "expected a pickle of tensors, got a memo lookup of index 7, which was never stored");
  EXPECT_EQ(error("}(Nu."), "expected a pickle of tensors, got a dict key without a value");
  EXPECT_EQ(error("}}a."), "expected a pickle of tensors, got a dict in place of a list to append to");
  EXPECT_EQ(error(")}a."), "expected a pickle of tensors, got a tuple in place of a list to append to");
  EXPECT_EQ(error("}]]s."), "expected a pickle of tensors, got a list as the key of a dict");
  EXPECT_EQ(error("]]s."), "expected a pickle of tensors, got a stack underflow");
  EXPECT_EQ(error("K\x01)R."), "expected a pickle of tensors, got an int in place of a callable for REDUCE");
  EXPECT_EQ(error("ctorch\nfloat32\n)R."), "expected a pickle of tensors, got REDUCE of a non-callable");
  EXPECT_EQ(error("ctorch._utils\n_rebuild_tensor_v2\n)R."),
            "expected a pickle of tensors, got wrong arguments of _rebuild_tensor");
  EXPECT_EQ(error("}I1\ns."), "expected a pickle of tensors, got the opcode INT");
  EXPECT_EQ(error("}\x92."), "expected a pickle of tensors, got the opcode NEWOBJ_EX");
  EXPECT_EQ(error("}\x97."), "expected a pickle of tensors, got the opcode NEXT_BUFFER");
  EXPECT_EQ(error("}i"), "expected a pickle of tensors, got the opcode INST");
  EXPECT_EQ(error("}\xff."), "expected a pickle of tensors, got the byte 255, which is no opcode");
  EXPECT_EQ(error("}0."), "expected a pickle of tensors, got a stack underflow");
  EXPECT_EQ(error("}]\x90."), "expected a pickle of tensors, got an opcode that needs a MARK, without one");
  EXPECT_EQ(error("](\x90."), "expected a pickle of tensors, got a list in place of a set to append to");
  const std::string key("X\x01\0\0\0a", 6);
  // Containers without tensors may be nested to any depth, and contain themselves.
  for (const auto& pickle : {"}" + key + std::string(100'000, ']') + std::string(99'999, 'a') + "s.",
                             std::string("}q\0", 3) + key + std::string("h\0s.", 4)}) {
    EXPECT_TRUE(parse_pytorch(bytes_of(archive_of(pickle))).tensors.is_empty());
  }
}

// ---- loading a module

torch::nn::Sequential small_module() {
  return torch::nn::Sequential(torch::nn::Linear(3, 2), torch::nn::BatchNorm1d(2));
}

TEST_F(CheckpointTest, LoadsIntoAModule) {
  auto module = small_module();
  const auto report =
      load_state_dict(module, load_pytorch(recorded("module.pt")), {.key_mapping = [](std::string key) {
                        const bool is_first = key.starts_with("first");
                        return std::string(is_first ? "0" : "1").append(key, is_first ? 5 : 4);
                      }});
  EXPECT_TRUE(report.missing_keys.empty() && report.unexpected_keys.empty());
  EXPECT_TRUE(torch::equal(module->named_parameters()["0.weight"], torch::arange(6.0F).view({2, 3})));
  EXPECT_TRUE(module->named_parameters()["0.weight"].requires_grad());

  auto wide = small_module();
  wide->to(torch::kDouble);
  load_state_dict(wide, state_dict(module));
  EXPECT_TRUE(
      torch::equal(wide->named_parameters()["1.bias"], torch::tensor({300.0, 301.0}, torch::kDouble)));
}

TEST_F(CheckpointTest, SavesAndLoadsAModule) {
  nn::Attention module(4, 6, 5), loaded(4, 6, 5);
  save_safetensors(state_dict(module), path("module.safetensors"));
  load_state_dict(*loaded, load_safetensors(path("module.safetensors")));
  for (const auto& parameter : module->named_parameters()) {
    EXPECT_TRUE(torch::equal(parameter.value(), loaded->named_parameters()[parameter.key()]))
        << parameter.key();
  }
}

TEST_F(CheckpointTest, AFailedLoadListsAllProblemsAndChangesNothing) {
  nn::Attention module(4, 6, 5);
  auto checkpoint = state_dict(nn::Attention(4, 6, 5));
  checkpoint.tensors.erase("q_linear.bias");
  checkpoint.tensors["v_linear.weight"] = torch::zeros({5, 4});
  checkpoint.tensors.insert("extra", torch::ones(1));
  std::vector<torch::Tensor> before;
  for (const auto& parameter : module->parameters()) before.push_back(parameter.detach().clone());
  EXPECT_EQ(error_of([&] { load_state_dict(module, checkpoint); }),
            "attend::load_state_dict: state_dict: expected the keys and shapes of the module "
            "attend::nn::AttentionImpl, got differences:"
            "\n  Missing keys:\n    q_linear.bias\n  Unexpected keys:\n    extra\n  Shape mismatches:\n    "
            "v_linear.weight: "
            "expected "
            "float32 [5, 5], got float32 [5, 4]");
  EXPECT_EQ(error_of([&] { load_state_dict(module, checkpoint, {.strict = false}); }),
            "attend::load_state_dict: state_dict: expected the keys and shapes of the module "
            "attend::nn::AttentionImpl, got differences:"
            "\n  Shape mismatches:\n    v_linear.weight: expected float32 [5, 5], got float32 [5, 4]");
  for (size_t n = 0; n < before.size(); ++n) EXPECT_TRUE(torch::equal(module->parameters()[n], before[n]));

  checkpoint.tensors["v_linear.weight"] = torch::zeros({5, 5});
  const auto report = load_state_dict(module, checkpoint, {.strict = false});
  EXPECT_EQ(report.missing_keys, std::vector<std::string>{"q_linear.bias"});
  EXPECT_EQ(report.unexpected_keys, std::vector<std::string>{"extra"});
  EXPECT_EQ(module->v_linear->weight.abs().sum().item<float>(), 0);
}

TEST_F(CheckpointTest, ConvertsDtypesUnlessRefused) {
  nn::Attention module(4, 6, 5), other(4, 6, 5);
  auto state = state_dict(other);
  state.tensors["q_linear.bias"] = torch::ones(6, torch::kDouble);
  const auto before = module->q_linear->weight.detach().clone();
  EXPECT_EQ(error_of([&] { load_state_dict(module, state, {.convert_dtype = false}); }),
            "attend::load_state_dict: state_dict: expected the keys, shapes and dtypes of the module "
            "attend::nn::AttentionImpl, got differences:"
            "\n  Dtype mismatches:\n    q_linear.bias: expected float32 [6], got float64 [6]");
  EXPECT_TRUE(torch::equal(module->q_linear->weight, before));
  load_state_dict(module, state);
  EXPECT_TRUE(torch::equal(module->q_linear->bias, torch::ones(6)));
  load_state_dict(module, state_dict(other), {.convert_dtype = false});
}

TEST_F(CheckpointTest, AFailedLoadListsTenKeys) {
  StateDict checkpoint;
  for (int n = 0; n < 200; ++n) checkpoint.tensors.insert(c10::str("extra", n), torch::ones(1));
  torch::nn::Module module("empty");
  const auto error = error_of([&] { load_state_dict(module, checkpoint); });
  const std::string end = "\n    extra8\n    extra9\n    and 190 more";
  EXPECT_EQ(error.substr(error.size() - end.size()), end);
}

TEST_F(CheckpointTest, KeysAreMapped) {
  torch::nn::Module module;
  module.register_parameter("x", torch::zeros(1));
  const LoadParams without_prefix{
      .key_mapping = [](std::string key) { return key.starts_with("model.") ? key.substr(6) : key; }};
  const auto report = load_state_dict(module, {{{{"model.x", torch::ones(1)}}}}, without_prefix);
  EXPECT_TRUE(report.missing_keys.empty() && report.unexpected_keys.empty());
  EXPECT_EQ(module.named_parameters()["x"].item<float>(), 1);
  EXPECT_EQ(load_state_dict(module, {{{{"model.y", torch::ones(1)}}}},
                            {.key_mapping = without_prefix.key_mapping, .strict = false})
                .unexpected_keys,
            std::vector<std::string>{"y"});
  EXPECT_EQ(
      error_of([&] {
        load_state_dict(module, {{{{"x", torch::ones(1)}, {"model.x", torch::zeros(1)}}}}, without_prefix);
      }),
      "attend::load_state_dict: state_dict: expected the keys and shapes of the module " + module.name() +
          ", got differences:\n  Duplicate keys after key_mapping:\n    x");
  EXPECT_EQ(module.named_parameters()["x"].item<float>(), 1);
}

// ---- damaged files

/// Returns a file that is changed in a few places.
std::string mutated(std::string file, std::mt19937& random) {
  const auto below = [&](size_t end) { return std::uniform_int_distribution<size_t>(0, end)(random); };
  const std::array<std::string, 8> pieces = {std::string(8, '\xff'),
                                             std::string(4, '\0'),
                                             std::string(1, '\x80'),
                                             "[[[[[[[[",
                                             "\"a\":",
                                             "h\x01h\x02h\x01",
                                             "(((t)",
                                             "99999999999999999999"};
  for (size_t n = below(3); n < 4 && !file.empty(); ++n) {
    const size_t at = below(file.size() - 1), length = 1 + below(15);
    switch (below(5)) {
      case 0:
        file[at] = static_cast<char>(file[at] ^ (1 << below(7)));
        break;
      case 1:
        file[at] = static_cast<char>(below(255));
        break;
      case 2:
        file.erase(at, length);
        break;
      case 3:
        file.insert(at, file.substr(below(file.size() - 1), length));
        break;
      case 4:
        file.replace(at, std::min(length, file.size() - at), pieces.at(below(pieces.size() - 1)));
        break;
      default:
        file.resize(at);
    }
  }
  return file;
}

/// The range of bytes of a file that are changed. Changes of the data of tensors would have no effect.
using Region = std::pair<size_t, size_t>;

Region whole(const std::string& file) { return {0, file.size()}; }

Region pickle_of(const std::string& file) {
  const size_t name = file.find("data.pkl");
  return {file.find("\x80", name), file.find("PK", name)};
}

/// Parses `count` mutations of a file, each of which must load or throw c10::Error, with limited memory.
/// Returns the number of mutations that load.
int64_t parse_mutations(const std::string& name, int count,
                        const std::function<Region(const std::string&)>& region,
                        const std::function<StateDict(const torch::Tensor&)>& parse, size_t fixed = 65536) {
  // The memory of a tensor without its data, divided by the length of the shortest text that describes a
  // tensor.
  constexpr size_t kFactor = 32;
  static CountingAllocator counting;
  c10::SetAllocator(c10::kCPU, &counting);
  const auto file = content_of(recorded(name));
  const auto [begin, end] = region(file);
  std::mt19937 random(static_cast<unsigned>(count));
  int64_t loaded = 0;
  size_t most = 0;
  for (int n = 0; n < count; ++n) {
    const auto changed = mutated(file.substr(begin, end - begin), random);
    const auto bytes = bytes_of(file.substr(0, begin) + changed + file.substr(end));
    const size_t before = allocated;
    try {
      const auto checkpoint = parse(bytes);
      most = std::max(most, (allocated - before) / static_cast<size_t>(bytes.numel() + 1));
      EXPECT_LE(allocated - before, kFactor * static_cast<size_t>(bytes.numel()) + fixed);
      for (const auto& item : checkpoint.tensors) {  // every element can be read
        if (item.value().numel() < 1'000'000) static_cast<void>(dense(item.value().clone()));
      }
      ++loaded;
    } catch (const c10::Error&) {
      EXPECT_LE(allocated - before, kFactor * static_cast<size_t>(bytes.numel()) + fixed);
    }
  }
  fmt::print("{}: {} of {} load, at most {} times the file's size allocated\n", name, loaded, count, most);
  return loaded;
}

TEST_F(CheckpointTest, SurvivesFiftyThousandDamagedSafetensors) {
  EXPECT_GT(parse_mutations("every_dtype.safetensors", 50'000, whole, parse_safetensors), 0);
}

TEST_F(CheckpointTest, SurvivesFiftyThousandDamagedPickles) {
  const int64_t loaded = parse_mutations("nested.pt", 20'000, pickle_of, parse_pytorch) +
                         parse_mutations("shared.pt", 15'000, pickle_of, parse_pytorch) +
                         parse_mutations("protocol4.pt", 5'000, pickle_of, parse_pytorch) +
                         parse_mutations("module.pt", 10'000, whole, parse_pytorch);
  EXPECT_GT(loaded, 0);
}

TEST_F(CheckpointTest, SurvivesThirtyThousandDamagedKindsOfTensors) {
  // ATen's error for a sparse tensor, which our error quotes, takes as much memory for its backtrace as our
  // error.
  constexpr size_t kTwoErrors = 2 * 65536 + 32768;
  const int64_t loaded = parse_mutations("harmless.pt", 10'000, pickle_of, parse_pytorch) +
                         parse_mutations("harmless_protocol5.pt", 5'000, pickle_of, parse_pytorch) +
                         parse_mutations("legacy_harmless.pt", 10'000, whole, parse_pytorch, kTwoErrors) +
                         parse_mutations("keys.pt", 5'000, pickle_of, parse_pytorch);
  EXPECT_GT(loaded, 0);
}

}  // namespace
}  // namespace attend::testing
