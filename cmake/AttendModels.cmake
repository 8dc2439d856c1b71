# The pretrained models are a separate library, so that attend itself does not need ICU.
if(NOT TARGET ICU::uc OR NOT TARGET ICU::i18n)
  find_package(ICU QUIET COMPONENTS uc i18n)
endif()
if(NOT TARGET ICU::uc OR NOT TARGET ICU::i18n)
  message(FATAL_ERROR "ICU was not found, which attend::models needs for its tokenizers: install it (Debian: libicu-dev), "
    "or leave the models out with -DATTEND_BUILD_MODELS=OFF")
endif()

add_library(attend_models SHARED
  src/core/checks.cpp
  src/core/json.cpp
  src/models/basic_tokenizer.cpp
  src/models/bert.cpp
  src/models/config_file.cpp
  src/models/load_bert.cpp
  src/models/load_sentence_encoder.cpp
  src/models/load_word_piece.cpp
  src/models/sentence_encoder.cpp
  src/models/word_piece.cpp
  src/text/added_tokens.cpp
  src/text/aligned_text.cpp
  src/text/base64.cpp
  src/text/bpe.cpp
  src/text/byte_level.cpp
  src/text/byte_tokens.cpp
  src/text/decoder.cpp
  src/text/json_field.cpp
  src/text/load_tokenizer.cpp
  src/text/metaspace.cpp
  src/text/model.cpp
  src/text/normalizer.cpp
  src/text/pattern.cpp
  src/text/pipeline.cpp
  src/text/post_processor.cpp
  src/text/pre_tokenizer.cpp
  src/text/precompiled_normalizer.cpp
  src/text/regex.cpp
  src/text/token_matcher.cpp
  src/text/tokenizer.cpp
  src/text/unicode.cpp
  src/text/unicode_forms.cpp
  src/text/unigram.cpp
  src/text/vocabulary.cpp
  src/text/word_piece_model.cpp)
add_library(attend::models ALIAS attend_models)
target_link_libraries(attend_models PUBLIC attend PRIVATE nlohmann_json::nlohmann_json ICU::i18n ICU::uc)
set_target_properties(attend_models PROPERTIES EXPORT_NAME models)
attend_shared_library(attend_models)
