#include <algorithm>
#include <string_view>

#include "core/json.h"
#include "plot/svg.h"
#include "plot/weights.h"

namespace attend {
namespace {

// The page, with TITLE and DATA in place of the title and the data.
constexpr std::string_view kPage = R"(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>TITLE</title>
<style>
body { font: 15px sans-serif; margin: 2em; color: #222; }
nav { margin: 1em 0; }
nav label { margin-right: 1.5em; }
.tokens { line-height: 2; max-width: 60em; }
.tokens span { padding: 2px 4px; margin: 1px; border-radius: 3px; cursor: pointer; display: inline-block; }
.tokens span.chosen { outline: 2px solid #c0392b; }
canvas { border: 1px solid #ccc; margin-top: 1em; }
</style>
</head>
<body>
<h1>TITLE</h1>
<nav>
<label>Layer <select id="layer"></select></label>
<label>Head <select id="head"></select></label>
<span id="reading"></span>
</nav>
<p>Choose a query; the darker a key, the more the query attends to it.</p>
<h2>Queries</h2>
<div id="queries" class="tokens"></div>
<h2>Keys</h2>
<div id="keys" class="tokens"></div>
<canvas id="map"></canvas>
<script id="data" type="application/json">DATA</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const bytes = Uint8Array.from(atob(data.weights), c => c.charCodeAt(0));
const [layers, heads, queries, keys] = data.sizes;
const element = id => document.getElementById(id);
let chosen = 0;

function options(select, count, first) {
  if (first) select.add(new Option(first, "mean"));
  for (let n = 0; n < count; ++n) select.add(new Option(n, n));
  select.onchange = draw;
}

function weight(i, j) {
  const layer = +element("layer").value, head = element("head").value;
  const of = h => bytes[((layer * heads + h) * queries + i) * keys + j] / 255;
  if (head !== "mean") return of(+head);
  let sum = 0;
  for (let h = 0; h < heads; ++h) sum += of(h);
  return sum / heads;
}

function spans(parent, labels, count, choose) {
  const all = [];
  for (let n = 0; n < count; ++n) {
    const span = document.createElement("span");
    span.textContent = labels.length ? labels[n] : n;
    span.onclick = span.onmouseover = () => choose(n);
    parent.append(span, " ");
    all.push(span);
  }
  return all;
}

function draw() {
  querySpans.forEach((span, i) => span.classList.toggle("chosen", i === chosen));
  keySpans.forEach((span, j) => {
    const w = queries ? weight(chosen, j) : 0;
    span.style.background = `rgba(31, 58, 147, ${w})`;
    span.style.color = w > 0.5 ? "#fff" : "#222";
    span.title = w.toFixed(3);
  });
  const cell = Math.max(3, Math.min(16, Math.floor(900 / Math.max(keys, 1)))), map = element("map");
  map.width = cell * keys;
  map.height = cell * queries;
  const context = map.getContext("2d");
  for (let i = 0; i < queries; ++i) {
    for (let j = 0; j < keys; ++j) {
      context.fillStyle = `rgba(31, 58, 147, ${weight(i, j)})`;
      context.fillRect(cell * j, cell * i, cell, cell);
    }
  }
  map.onmousemove = event => {
    const i = Math.floor(event.offsetY / cell), j = Math.floor(event.offsetX / cell);
    if (i < 0 || j < 0 || i >= queries || j >= keys) return;
    element("reading").textContent =
        `${querySpans[i].textContent} → ${keySpans[j].textContent}: ${weight(i, j).toFixed(3)}`;
  };
}

options(element("layer"), layers);
options(element("head"), heads, "mean");
const querySpans = spans(element("queries"), data.queries, queries, n => { chosen = n; draw(); });
const keySpans = spans(element("keys"), data.keys, keys, () => {});
draw();
</script>
</body>
</html>
)";

std::string base64(const at::Tensor& bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto* byte = bytes.const_data_ptr<uint8_t>();
  const int64_t count = bytes.numel();
  std::string text;
  text.reserve(static_cast<size_t>(count / 3 + 1) * 4);
  for (int64_t n = 0; n < count; n += 3) {
    uint32_t three = 0;
    for (int64_t k = 0; k < 3; ++k) three = three << 8 | (n + k < count ? byte[n + k] : 0U);
    for (int64_t k = 0; k < 4; ++k) {
      text += n + k > count ? '=' : kDigits[(three >> (18 - 6 * static_cast<uint32_t>(k))) & 63];
    }
  }
  return text;
}

std::string json_array(const std::vector<std::string>& elements) {
  std::string text;
  for (const auto& element : elements) text += (text.empty() ? "" : ",") + element;
  return "[" + text + "]";
}

std::string json_strings(const std::vector<std::string>& texts) {
  std::vector<std::string> elements;
  elements.reserve(texts.size());
  for (const auto& text : texts) elements.push_back(json::quoted_ascii(text));
  return json_array(elements);
}

/// Returns the data of the page as JSON without the character <, so that the data cannot end the script
/// element that contains them.
std::string json_data(const at::Tensor& bytes, const PlotLabels& labels) {
  std::vector<std::string> sizes;
  for (const auto size : bytes.sizes()) sizes.push_back(std::to_string(size));
  const auto data = R"({"keys":)" + json_strings(labels.keys) + R"(,"queries":)" +
                    json_strings(labels.queries) + R"(,"sizes":)" + json_array(sizes) + R"(,"weights":")" +
                    base64(bytes) + R"("})";
  std::string text;
  for (const char c : data) text += c == '<' ? std::string("\\u003c") : std::string(1, c);
  return text;
}

/// Replaces TITLE and DATA in the page. Occurrences of these words in the inserted text are not replaced.
std::string filled(std::string_view page, std::string_view title, std::string_view data) {
  std::string result;
  while (!page.empty()) {
    const size_t next = std::min(page.find("TITLE"), page.find("DATA"));
    result += page.substr(0, next);
    if (next == std::string_view::npos) break;
    const bool is_title = page.substr(next).starts_with("TITLE");
    result += is_title ? title : data;
    page.remove_prefix(next + (is_title ? 5 : 4));
  }
  return result;
}

}  // namespace

std::string attention_html(const at::Tensor& weights, const PlotLabels& labels, const std::string& title) {
  const auto bytes = plot::weights_as_bytes("attention_html", weights, labels, 2, 4);
  return filled(kPage, plot::escape_markup(title), json_data(bytes, labels));
}

}  // namespace attend
