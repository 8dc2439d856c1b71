# The pretrained models are a separate library, so that attend itself does not need ICU.
if(NOT TARGET ICU::uc)
  find_package(ICU QUIET COMPONENTS uc)
endif()
if(NOT TARGET ICU::uc)
  message(FATAL_ERROR "ICU was not found, which attend::models needs for its tokenizer: install it (Debian: libicu-dev), "
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
  src/models/token_matcher.cpp
  src/models/word_piece.cpp)
add_library(attend::models ALIAS attend_models)
target_link_libraries(attend_models PUBLIC attend PRIVATE nlohmann_json::nlohmann_json ICU::uc)
set_target_properties(attend_models PROPERTIES EXPORT_NAME models)
attend_shared_library(attend_models)
set_target_properties(attend_models PROPERTIES UNITY_BUILD_MODE BATCH UNITY_BUILD_BATCH_SIZE 0)  # all in one
