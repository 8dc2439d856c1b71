// Tests the contents of pictures of attention weights and of line charts, and that labels cannot inject
// markup.
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

TEST(Plot, SvgHasASquareForEachNonzeroWeight) {
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
  EXPECT_EQ(count(svg, ">y</text>"), 2);  // beside each of the two heads
  // One head without labels.
  EXPECT_EQ(count(attention_svg(weights[0]), "<text"), 0);
}

TEST(Plot, LabelsAreEscaped) {
  const std::string label = "<script>&\"'\x01\xff\xe6\x97\xa5";
  const auto svg = attention_svg(torch::ones({1, 1}), {.queries = {label}, .keys = {"]]>"}});
  EXPECT_EQ(count(svg, "<script>"), 0);
  EXPECT_EQ(count(svg, "&lt;script&gt;&amp;&quot;&#39;\xef\xbf\xbd\xef\xbf\xbd\xe6\x97\xa5"), 1);
  const auto html =
      attention_html(torch::ones({1, 1}), {.queries = {"</script><b>"}, .keys = {label}}, label);
  EXPECT_EQ(count(html, "</script>"), 2);  // the ends of the page's own two scripts
  EXPECT_EQ(count(html, "<b>"), 0);
  EXPECT_EQ(count(html, "&lt;script&gt;&amp;&quot;&#39;"), 2);  // the title, twice
}

TEST(Plot, HtmlContainsTheWeightsAndTheLabels) {
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
  // Base64 (RFC 4648): four digits for three bytes.
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

TEST(Plot, WeightsOutsideZeroToOneAreClamped) {
  const auto svg = attention_svg(torch::tensor({{std::nan(""), -1.0, 2.0}}));
  EXPECT_EQ(count(svg, "fill-opacity"), 1);
  EXPECT_EQ(count(svg, "fill-opacity=\"1\""), 1);
  EXPECT_TRUE(attention_svg(torch::zeros({0, 3, 0})).ends_with("</svg>\n"));
}

TEST(Plot, ErrorsNameTheArgument) {
  EXPECT_EQ(error_of([] { attention_svg(torch::rand({2, 3, 4, 5})); }),
            "attend::attention_svg: weights: expected 2 to 3 dimensions, got float32 [2, 3, 4, 5]");
  EXPECT_EQ(error_of([] { attention_svg(torch::rand({2, 3}), {.queries = {"a"}}); }),
            "attend::attention_svg: labels.queries: expected 2 labels or none, got 1");
  EXPECT_EQ(error_of([] { attention_html(torch::rand({3}), {}); }),
            "attend::attention_html: weights: expected 2 to 4 dimensions, got float32 [3]");
}

/// Returns the points of the n-th polyline of a picture.
std::vector<std::pair<double, double>> polyline(const std::string& svg, int n) {
  size_t at = 0;
  for (int k = 0; k <= n; ++k) at = svg.find("<polyline points=\"", at) + 18;
  std::istringstream list(svg.substr(at, svg.find('"', at) - at));
  std::vector<std::pair<double, double>> points;
  double x = 0, y = 0;
  char comma = 0;
  while (list >> x >> comma >> y) points.emplace_back(x, y);
  return points;
}

TEST(Plot, LineChartPlacesPointsByTheScaleOfTheAxes) {
  LineChart chart{.title = "time & length",
                  .series = {{"a < b", {{256, 1}, {1024, 10}, {4096, 1000}}}, {"b", {{256, 100}}}},
                  .x = {.label = "tokens", .scale = AxisScale::logarithmic, .ticks = {256, 1024, 4096}},
                  .y = {.label = "ms", .scale = AxisScale::logarithmic},
                  .width = 200,
                  .height = 300};
  const auto svg = line_chart_svg(chart);
  EXPECT_TRUE(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  for (const char* text : {">time &amp; length<", ">a &lt; b<", ">tokens<", ">ms<", ">256<", ">1024<",
                           ">4096<", ">1<", ">10<", ">100<", ">1000<"}) {
    EXPECT_EQ(count(svg, text), 1) << text;
  }
  EXPECT_EQ(count(svg, "<circle"), 4);
  const auto first = polyline(svg, 0), second = polyline(svg, 1);
  ASSERT_EQ(first.size(), 3U);
  ASSERT_EQ(second.size(), 1U);
  EXPECT_NEAR(first[1].first - first[0].first, 100, 0.02);  // half of the range in logarithms
  EXPECT_NEAR(first[2].first - first[0].first, 200, 0.02);
  EXPECT_NEAR(first[0].second - first[1].second, 100, 0.02);  // a decade of three
  EXPECT_NEAR(first[0].second - first[2].second, 300, 0.02);
  EXPECT_NEAR(first[0].second - second[0].second, 200, 0.02);

  chart.x = {.minimum = 0, .maximum = 4096};
  chart.y = {.minimum = 0, .maximum = 500};
  const auto linear = polyline(line_chart_svg(chart), 0);
  EXPECT_NEAR(linear[1].first - linear[0].first, 200 * 768 / 4096.0, 0.02);
  EXPECT_NEAR(linear[0].second - linear[1].second, 300 * 9 / 500.0, 0.02);
  EXPECT_NEAR(linear[0].second - linear[2].second, 300 * 499 / 500.0, 0.02);  // clamped to the maximum
}

TEST(Plot, LineChartChoosesRoundTicks) {
  const auto labels = [](double low, double high, AxisScale scale) {
    const auto svg = line_chart_svg({.series = {{"", {{0, low}, {1, high}}}}, .y = {.scale = scale}});
    std::vector<std::string> found;
    const std::string end = "text-anchor=\"end\">";
    for (size_t at = svg.find(end); at != std::string::npos; at = svg.find(end, at + 1)) {
      found.push_back(svg.substr(at + end.size(), svg.find('<', at) - at - end.size()));
    }
    return found;
  };
  using Labels = std::vector<std::string>;
  EXPECT_EQ(labels(0, 1, AxisScale::linear), (Labels{"0", "0.2", "0.4", "0.6", "0.8", "1"}));
  EXPECT_EQ(labels(-3, 12, AxisScale::linear), (Labels{"-5", "0", "5", "10", "15"}));
  EXPECT_EQ(labels(7, 7, AxisScale::linear), (Labels{"2", "4", "6", "8", "10", "12"}));
  EXPECT_EQ(labels(0.02, 700, AxisScale::logarithmic), (Labels{"0.01", "0.1", "1", "10", "100", "1000"}));
  EXPECT_EQ(labels(3, 40, AxisScale::logarithmic), (Labels{"2", "5", "10", "20", "50"}));
  // For ranges at the limits of double, the search for ticks ends and ticks are finite.
  for (const auto& [low, high] :
       {std::pair(1e20, 1e20 + 16384), std::pair(-1e300, 1e300), std::pair(0.0, 5e-324)}) {
    const auto svg = line_chart_svg({.series = {{"", {{0, low}, {1, high}}}}});
    EXPECT_EQ(count(svg, "nan") + count(svg, "inf"), 0);
  }
  const auto wide =
      line_chart_svg({.series = {{"", {{0, 1e-300}, {1, 1e300}}}}, .y = {.scale = AxisScale::logarithmic}});
  EXPECT_EQ(count(wide, "nan") + count(wide, "inf"), 0);
}

TEST(Plot, LineChartsStandSideBySide) {
  const LineChart chart{.series = {{"a", {{0, 0}, {1, 1}}}}, .width = 100, .height = 100};
  const auto svg = line_charts_svg({chart, chart});
  EXPECT_GT(polyline(svg, 1)[0].first, polyline(svg, 0)[1].first);
  EXPECT_EQ(polyline(svg, 1)[0].second, polyline(svg, 0)[0].second);
}

TEST(Plot, LineChartErrors) {
  const auto error = [](const LineChart& chart) { return error_of([&] { line_chart_svg(chart); }); };
  EXPECT_EQ(error({}), "attend::line_chart_svg: chart.series: expected at least one point, got none");
  EXPECT_EQ(
      error({.series = {{"a", {{0, 1}}}}, .x = {.scale = AxisScale::logarithmic}}),
      "attend::line_chart_svg: chart.x: expected values from 1e-300 to 1e300 on a logarithmic axis, got 0");
  EXPECT_EQ(error({.series = {{"a", {{0, std::nan("")}}}}}),
            "attend::line_chart_svg: chart.y: expected values from -1e300 to 1e300, got nan");
  EXPECT_EQ(error({.series = {{"a", {{0, 1}}}}, .y = {.minimum = 2, .maximum = 1}}),
            "attend::line_chart_svg: chart.y: expected a minimum below the maximum, got 2 and 1");
  EXPECT_EQ(error({.series = {{"a", {{0, 1}}}}, .y = {.minimum = 2}}),
            "attend::line_chart_svg: chart.y: expected a minimum below the maximum, got 2 and 1");
  EXPECT_NO_THROW(line_chart_svg({.series = {{"a", {{0, 1}}}}, .y = {.minimum = 1}}));
  EXPECT_EQ(error({.series = {{"a", {{0, 1}}}}, .width = 0}),
            "attend::line_chart_svg: chart: expected a positive width and height, got 0 and 320");
  EXPECT_EQ(error_of([] { line_charts_svg({}); }),
            "attend::line_charts_svg: charts: expected at least one chart, got none");
}

}  // namespace
}  // namespace attend::testing
