// Pictures of attention: what they hold, and that nothing in a label can break out of them.
#include <attend/plot.h>

#include <nlohmann/json.hpp>

#include "support.h"

namespace attend::testing {
namespace {

int64_t count(const std::string& text, const std::string& part) {
  int64_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST(Plot, SvgHasASquareForEachWeightThatIsSeen) {
  const auto weights =
      torch::tensor({{{0.5, 0.5, 0.0}, {1.0, 0.0, 0.0}}, {{0.25, 0.25, 0.5}, {0.0, 0.0, 1.0}}});
  const auto svg = attention_svg(weights, {.queries = {"a", "b"}, .keys = {"x", "y", "z"}});
  EXPECT_TRUE(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  EXPECT_EQ(count(svg, "fill-opacity"), 7);
  EXPECT_EQ(count(svg, "fill-opacity=\"1\""), 2);
  EXPECT_EQ(count(svg, "fill-opacity=\"0.501961\""), 3);  // 128 of 255
  EXPECT_EQ(count(svg, ">head 0<") + count(svg, ">head 1<"), 2);
  EXPECT_EQ(count(svg, "text-anchor=\"end\">a</text>"), 1);
  EXPECT_EQ(count(svg, ">y</text>"), 2);  // beside each head
  // One head, and no labels.
  EXPECT_EQ(count(attention_svg(weights[0]), "<text"), 0);
}

TEST(Plot, LabelsAreEscaped) {
  const std::string label = "<script>&\"'\x01\xff\xe6\x97\xa5";
  const auto svg = attention_svg(torch::ones({1, 1}), {.queries = {label}, .keys = {"]]>"}});
  EXPECT_EQ(count(svg, "<script>"), 0);
  EXPECT_EQ(count(svg, "&lt;script&gt;&amp;&quot;&#39;\xef\xbf\xbd\xef\xbf\xbd\xe6\x97\xa5"), 1);
  const auto html =
      attention_html(torch::ones({1, 1}), {.queries = {"</script><b>"}, .keys = {label}}, label);
  EXPECT_EQ(count(html, "</script>"), 2);  // of the page's own two scripts
  EXPECT_EQ(count(html, "<b>"), 0);
  EXPECT_EQ(count(html, "&lt;script&gt;&amp;&quot;&#39;"), 2);  // the title, twice
}

TEST(Plot, HtmlHoldsTheWeightsAndTheLabels) {
  const auto weights = torch::rand({2, 3, 4, 5});
  PlotLabels labels{.queries = {"TITLE", "DATA", "c", "d"}, .keys = {"e", "f", "g", "h", "i"}};
  const auto html = attention_html(weights, labels, "DATA");
  const std::string begin = "<script id=\"data\" type=\"application/json\">";
  const size_t first = html.find(begin) + begin.size();
  const auto data = nlohmann::json::parse(html.substr(first, html.find("</script>", first) - first));
  EXPECT_EQ(data["sizes"], (std::vector<int64_t>{2, 3, 4, 5}));
  EXPECT_EQ(data["queries"], labels.queries);
  EXPECT_EQ(data["keys"], labels.keys);
  EXPECT_EQ(count(html, "<title>DATA</title>"), 1);
  // Base64 by the book: four digits for three bytes.
  const auto text = data["weights"].get<std::string>();
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<int64_t> bytes;
  uint32_t bits = 0;
  for (size_t n = 0; n < text.size(); ++n) {
    bits = bits << 6 | static_cast<uint32_t>(text[n] == '=' ? 0 : digits.find(text[n]));
    if (n % 4 == 3) bytes.insert(bytes.end(), {bits >> 16 & 255, bits >> 8 & 255, bits & 255});
  }
  bytes.resize(120);
  EXPECT_TRUE(torch::equal(torch::tensor(bytes, torch::kLong),
                           (weights.to(torch::kDouble) * 255).round().to(torch::kLong).flatten()));
}

TEST(Plot, WeightsThatAreNone) {
  const auto svg = attention_svg(torch::tensor({{std::nan(""), -1.0, 2.0}}));
  EXPECT_EQ(count(svg, "fill-opacity"), 1);
  EXPECT_EQ(count(svg, "fill-opacity=\"1\""), 1);
  EXPECT_TRUE(attention_svg(torch::zeros({0, 3, 0})).ends_with("</svg>\n"));
}

TEST(Plot, ErrorsNameTheArgument) {
  EXPECT_EQ(error_of([] { attention_svg(torch::rand({2, 3, 4, 5})); }),
            "attend::attention_svg: weights: expected 2 to 3 dimensions, got float32 [2, 3, 4, 5]");
  EXPECT_EQ(error_of([] { attention_svg(torch::rand({2, 3}), {.queries = {"a"}}); }),
            "attend::attention_svg: labels.queries: expected 2 or none, got 1");
  EXPECT_EQ(error_of([] { attention_html(torch::rand({3}), {}); }),
            "attend::attention_html: weights: expected 2 to 4 dimensions, got float32 [3]");
}

}  // namespace
}  // namespace attend::testing
