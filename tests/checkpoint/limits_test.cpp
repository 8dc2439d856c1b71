// Tests files that follow their format but must be refused, since reading them would take time or memory out
// of proportion to their size, or would access memory out of bounds; and the weights of folders.
#include <attend/checkpoint.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "checkpoint_files.h"
#include "support.h"

namespace attend::testing {
namespace {

namespace fs = std::filesystem;

/// Returns a pickled text of less than 256 bytes.
std::string text(const std::string& name) {
  return std::string("\x8c") + static_cast<char>(name.size()) + name;
}

/// Returns the pickle of a tensor in the first storage of a file, given the opcodes of its sizes and strides.
std::string tensor(const std::string& sizes, const std::string& strides, const std::string& type = "Float") {
  return "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\n" + type + "Storage\n" +
         text("0") + text("cpu") + "K\x04tQK" + std::string(1, '\0') + sizes + strides + "\x89}tR";
}

/// Returns a file in the format before PyTorch 1.6, with one storage of 16 bytes: four float32 elements, or
/// elements of another type.
std::string legacy_file_of(const std::string& object, const std::string& data = std::string(16, '\0')) {
  const std::string header =
      "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.";
  return header + "\x80\x02" + object + ".\x80\x02](" + text("0") + "e." + little_endian(uint64_t{4}) + data;
}

std::string error_with(const std::string& file) {
  const std::string prefix = "attend::parse_pytorch: bytes: ";
  const auto message = error_of([&] { parse_pytorch(bytes_of(file)); });
  EXPECT_TRUE(message.starts_with(prefix)) << message;
  return message.substr(std::min(prefix.size(), message.size()));
}

TEST(CheckpointLimits, RepeatedContainersAreLimited) {
  // 30 nested lists around a tensor, each of which contains the next list ten times: 10^30 names.
  std::string nested = "](" + tensor("K\x04\x85", "K\x01\x85") + "e";
  for (int n = 0; n < 30; ++n) {
    nested = "](" + nested + "2222222222e";
  }
  const auto file = legacy_file_of("}" + text("a") + nested + "s");
  const auto message = error_with(file);
  EXPECT_NE(message.find("128 times the size of the file, got more, by containers that are repeated"),
            std::string::npos)
      << message;
  EXPECT_NE(message.find(std::to_string((1 << 20) + 128 * file.size())), std::string::npos) << message;
}

TEST(CheckpointLimits, CyclesThroughTensorsAreRefused) {
  EXPECT_EQ(error_with(legacy_file_of("}q\x01(" + text("a") + tensor("K\x04\x85", "K\x01\x85") +
                                      text("self") + "h\x01u")),
            "expected containers of tensors without cycles, got one that contains itself");
}

TEST(CheckpointLimits, KeysAreNamedInProportion) {
  // A key that is a tuple of 2^40 texts: ((..., ...), (..., ...)).
  std::string key = text("key");
  for (int n = 0; n < 30; ++n) key += "2\x86";
  EXPECT_EQ(error_with(legacy_file_of("}" + key + tensor("K\x04\x85", "K\x01\x85") + "s")),
            "expected names of tensors in proportion to the file, got longer ones");
}

TEST(CheckpointLimits, RepeatedCallsAreLimited) {
  const auto call = tensor("K\x04\x85", "K\x01\x85");
  // The arguments, and then many calls of the function with the same arguments.
  const auto arguments = call.substr(call.find("(("), call.size() - call.find("((") - 1);
  std::string many = "](ctorch._utils\n_rebuild_tensor_v2\nq\x01" + arguments + "q\x02R";
  for (int n = 0; n < 1000; ++n) many += "h\x01h\x02R";
  EXPECT_EQ(error_with(legacy_file_of("}" + text("a") + many + "es")),
            "expected a pickle of tensors, got more tensors than a pickle of its size can describe");
}

/// Returns the pickle of a sparse tensor [2, 2], whose indices are in an int64 storage.
std::string sparse(const std::string& indices, const std::string& values) {
  return "ctorch._utils\n_rebuild_sparse_tensor\n(ctorch.serialization\n_get_layout\n" +
         text("torch.sparse_coo") + "\x85R(" + indices + values + "K\x02K\x02\x86\x89ttR";
}

TEST(CheckpointLimits, SparseTensorsAreChecked) {
  const auto indices = [](int64_t row) {
    return little_endian(int64_t{0}) + little_endian(row) + little_endian(int64_t{1}) +
           little_endian(int64_t{0});
  };
  const auto pickle =
      "}" + text("a") +
      sparse(tensor("K\x02K\x02\x86", "K\x02K\x01\x86", "Long"), tensor("K\x02\x85", "K\x01\x85", "Long")) +
      "s";
  const auto loaded = parse_pytorch(bytes_of(legacy_file_of(pickle, indices(1)))).tensors["a"];
  EXPECT_EQ(loaded.layout(), torch::kSparse);
  EXPECT_TRUE(torch::equal(loaded.to_dense(), torch::tensor({{0, 0}, {1, 0}})));
  const auto message = error_with(legacy_file_of(pickle, indices(1'000'000)));
  EXPECT_TRUE(message.starts_with("expected a pickle of tensors, got a sparse tensor that is not valid ("))
      << message;
  // One element, which strides of 0 repeat 2^60 times.
  const std::string huge = std::string("\x8a\x08\0\0\0\0\0\0\0\x10", 10);
  EXPECT_EQ(error_with(legacy_file_of(
                "}" + text("a") +
                    sparse(tensor("K\x02" + huge + "\x86", std::string("K\0K\0\x86", 5), "Long"),
                           tensor(huge + "\x85", std::string("K\0\x85", 3), "Long")) +
                    "s",
                indices(1))),
            "expected a pickle of tensors, got sparse or quantized tensors that repeat their elements");
}

TEST(CheckpointLimits, LegacyFilesAreChecked) {
  const auto file = legacy_file_of("}" + text("a") + tensor("K\x04\x85", "K\x01\x85") + "s");
  EXPECT_EQ(parse_pytorch(bytes_of(file)).tensors["a"].numel(), 4);
  EXPECT_EQ(error_with(file.substr(0, file.size() - 1)),
            "expected a storage \"0\" of 4 elements of 4 bytes, got a truncated file");
  EXPECT_EQ(error_with(file.substr(0, file.size() - 17)), "expected the storage \"0\", got a truncated file");
  EXPECT_EQ(error_with("\x80\x02K\x01."),
            "expected a file of torch.save, got a pickle without the magic number of one");
  auto other = file;
  other.replace(other.find("M\xe9\x03"), 3, "M\xe8\x03");
  EXPECT_EQ(error_with(other), "expected version 1001 of the format, got 1000");
  const auto big_endian = std::string("}") + text("little_endian") + "\x89s";
  other = file;
  other.replace(other.find("\x80\x02}.") + 2, 1, big_endian);
  EXPECT_EQ(error_with(other), "expected little-endian storages, got those of a big-endian machine");
  const std::string code =
      "}" + text("a") + "cposix\nsystem\n" + text("touch /tmp/attend_was_here") + "\x85Rs";
  EXPECT_EQ(error_with(legacy_file_of(code)),
            "expected tensors only, as in torch.save(model.state_dict(), path), got a pickle that refers to "
            "\"posix.system\"");
  EXPECT_FALSE(fs::exists("/tmp/attend_was_here"));
}

// ---- folders

class LoadWeightsTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const std::string& name = "") const { return (folder_ / name).string(); }
  std::string error() const {
    const auto prefix = "attend::load_weights: ";
    auto message = error_of([&] { load_weights(folder_.string()); });
    EXPECT_TRUE(message.starts_with(prefix)) << message;
    const auto folder = folder_.string();
    if (const auto at = message.find(folder); at != std::string::npos) message.erase(at, folder.size());
    return message.substr(std::string(prefix).size());
  }
  void write_index(const std::string& weight_map) const {
    std::ofstream(path("model.safetensors.index.json"))
        << R"({"metadata": {"total_size": 9}, "weight_map": )" << weight_map << "}";
  }

 private:
  fs::path folder_ = fs::temp_directory_path() / c10::str("attend_weights_", getpid());
};

TEST_F(LoadWeightsTest, ReadsShards) {
  save_safetensors({{{{"b", torch::ones(2)}, {"c", torch::zeros(3)}}}, {{"format", "pt"}}},
                   path("1.safetensors"));
  save_safetensors({{{{"a", torch::full(4, 2.0F)}}}}, path("2.safetensors"));
  write_index(R"({"a": "2.safetensors", "b": "1.safetensors", "c": "1.safetensors"})");
  const auto weights = load_weights(path());
  EXPECT_EQ(weights.tensors.keys(), (std::vector<std::string>{"b", "c", "a"}));
  EXPECT_TRUE(torch::equal(weights.tensors["a"], torch::full(4, 2.0F)));
  EXPECT_EQ(weights.metadata.at("format"), "pt");
  // A single file has precedence over an index.
  save_safetensors({{{{"whole", torch::ones(1)}}}}, path("model.safetensors"));
  EXPECT_EQ(load_weights(path()).tensors.keys(), std::vector<std::string>{"whole"});
}

TEST_F(LoadWeightsTest, ReadsFilesOfTorchSave) {
  fs::copy_file(recorded("module.pt"), path("pytorch_model.bin"));
  EXPECT_EQ(load_weights(path()).tensors.size(), 7U);
  fs::rename(path("pytorch_model.bin"), path("part.bin"));
  std::ofstream(path("pytorch_model.bin.index.json")) << R"({"weight_map": {"first.weight": "part.bin"}})";
  EXPECT_EQ(load_weights(path()).tensors.size(), 7U);
}

TEST_F(LoadWeightsTest, ErrorsSayWhatIsWrong) {
  const std::string expected =
      ": expected model.safetensors or pytorch_model.bin, or the index of either "
      "(model.safetensors.index.json), got ";
  EXPECT_EQ(error(), expected + "no files");
  for (int n = 0; n < 12; ++n) std::ofstream(path(c10::str("file", 10 + n)));
  EXPECT_TRUE(error().ends_with("\"file18\", \"file19\" and 2 more"));
  EXPECT_EQ(error_of([] { load_weights("/nowhere"); }),
            "attend::load_weights: /nowhere: expected a folder, got No such file or directory");

  save_safetensors({{{{"a", torch::ones(2)}}}}, path("1.safetensors"));
  save_safetensors({{{{"a", torch::ones(2)}}}}, path("2.safetensors"));
  const std::string index = "model.safetensors.index.json: ";
  for (const char* name :
       {"../1.safetensors", "..", "", "/1.safetensors", "a\\\\b", "1.safetensors\\u0000"}) {
    write_index(std::string(R"({"a": ")") + name + "\"}");
    EXPECT_TRUE(error().starts_with("/" + index + "expected the names of files beside the index, got ") ||
                error().starts_with(index + "expected the names of files beside the index, got "))
        << error();
  }
  write_index(R"({"b": "1.safetensors"})");
  EXPECT_EQ(error(), index + "expected the tensor \"b\" in 1.safetensors, got none");
  write_index(R"({"a": "1.safetensors", "b": "2.safetensors"})");
  EXPECT_EQ(error(), index + "expected the tensor \"b\" in 2.safetensors, got none");
  save_safetensors({{{{"a", torch::ones(2)}, {"b", torch::ones(2)}}}}, path("2.safetensors"));
  EXPECT_EQ(error(), index + "expected each tensor in one file, got \"a\" in 2.safetensors and another");
  write_index("[]");
  EXPECT_EQ(error().substr(error().find("expected")), "expected a JSON object with a weight_map, got none");
}

}  // namespace
}  // namespace attend::testing
