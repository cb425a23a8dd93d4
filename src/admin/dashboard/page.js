"use strict";
(() => {
  const EVERY = 2000, KEPT = 900000, OWN_KEPT = 60000;
  // Of the app's own figures no more are shown at a time.
  const OWN_SHOWN = 40;
  // Rates are taken over so many samples, quantiles over more: of few requests they say little.
  const RATE_OVER = 3, QUANTILES_OVER = 6;
  const at = (id) => document.getElementById(id);
  const SIGNS = { reload: "R", refused: "R", death: "×", leave: "·" };
  const ORDERLY = ["left", "quick_stop"];

  let columns = {}, bounds = [], rows = [], offset = 0, points = [], marks = [], status = null, cursor = null, failed = 0;
  // What was told of the app's own figures, and when, over the last minute.
  let owned = [];

  // ---- elements; whatever a worker or a client has written is text and never markup

  function make(tag, attributes, ...content) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
    }
    element.append(...content.filter((part) => part !== null && part !== undefined));
    return element;
  }
  function draw(tag, attributes, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }
  function put(element, ...content) { element.replaceChildren(...content); }

  // ---- words

  const number = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 2 : value < 100 ? 1 : 0 });
  const count = (value) => Math.round(value).toLocaleString("en");
  function duration(seconds) {
    if (seconds === null || seconds === undefined) return "–";
    if (seconds > 0 && seconds < 0.001) return number(seconds * 1e6) + " µs";
    if (seconds === 0) return "0 s";
    if (seconds < 1) return number(seconds * 1000) + " ms";
    if (seconds < 60) return number(seconds) + " s";
    const whole = Math.floor(seconds);
    const [d, h, m, s] = [whole / 86400, (whole % 86400) / 3600, (whole % 3600) / 60, whole % 60].map(Math.floor);
    return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : `${m} min ${s} s`;
  }
  function bytes(value) {
    if (value === null || value === undefined) return "–";
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    while (value >= 1024 && unit < 4) { value /= 1024; unit += 1; }
    return number(value) + " " + units[unit];
  }
  const pieces = (value) => value === null ? "–" : count(value);
  const percent = (value) => value === null ? "–" : number(value * 100) + " %";
  const rate = (value) => value === null ? "–" : number(value) + "/s";
  const latency = (value) => value === null ? "–" : value === Infinity ? "> " + duration(bounds[bounds.length - 1]) : duration(value);
  const clock = (when) => new Date(when + offset).toLocaleTimeString("en-GB");

  // ---- figures out of samples

  const figure = (row, name) => row[columns[name]];
  function grown(row, before, name) {
    const difference = figure(row, name) - figure(before, name);
    return difference < 0 ? null : difference;
  }
  function per(row, before, names) {
    const seconds = (row[0] - before[0]) / 1000;
    const sum = names.reduce((sum, name) => {
      const one = grown(row, before, name);
      return sum === null || one === null ? null : sum + one;
    }, 0);
    return seconds > 0 && sum !== null ? sum / seconds : null;
  }
  function quantile(row, before, share) {
    const counts = [...bounds.keys(), bounds.length].map((bucket) => grown(row, before, "latency_" + bucket));
    return counts.includes(null) ? null : reach(bounds, counts, share);
  }
  // The value below which this share of all lies; `counts` are those up to each bound, and the last one all.
  function reach(bounds, counts, share) {
    const all = counts[counts.length - 1];
    if (!all) return null;
    const wanted = all * share;
    for (let bucket = 0; bucket < bounds.length; bucket += 1) {
      if (counts[bucket] >= wanted) {
        // Nothing says where the first bucket begins; from a bound that is not above zero nothing can be read off.
        const low = bucket ? bounds[bucket - 1] : Math.min(0, bounds[0]), below = bucket ? counts[bucket - 1] : 0;
        return low + (bounds[bucket] - low) * (wanted - below) / (counts[bucket] - below || 1);
      }
    }
    return Infinity;
  }
  const CLASSES = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
  function point(index) {
    const row = rows[index];
    const before = rows[Math.max(0, index - RATE_OVER)], long = rows[Math.max(0, index - QUANTILES_OVER)];
    const hits = grown(row, long, "cache_hits"), misses = grown(row, long, "cache_misses");
    return {
      at: row[0],
      requests: per(row, before, CLASSES),
      p50: quantile(row, long, 0.5), p95: quantile(row, long, 0.95), p99: quantile(row, long, 0.99),
      client: per(row, before, ["4xx"]), server: per(row, before, ["5xx"]), none: per(row, before, ["none"]),
      hits: hits === null || misses === null || hits + misses === 0 ? null : hits / (hits + misses),
      used: figure(row, "pool_connections") - figure(row, "pool_idle"), open: figure(row, "pool_connections"),
      waiting: figure(row, "pool_waiting"), flight: figure(row, "in_flight"), clients: figure(row, "connections"),
      serving: figure(row, "workers_serving"), wanted: figure(row, "workers_wanted"),
    };
  }
  function read() {
    points = rows.map((_, index) => point(index));
    // Where there never was a connection, zeros would look like an idle pool.
    if (points.every((one) => !one.open && !one.waiting)) points.forEach((one) => { one.used = one.open = one.waiting = null; });
    if (points.length) for (const name of ["requests", "client", "server", "none"]) points[0][name] = null;
    marks = [];
    for (let index = 1; index < rows.length; index += 1) {
      const [row, before] = [rows[index], rows[index - 1]];
      const add = (kind, name, what) => {
        const times = grown(row, before, name);
        if (times) marks.push({ at: row[0], kind, what: times > 1 ? `${what}, ${times} times` : what });
      };
      add("reload", "reloads_adopted", "reload adopted");
      add("refused", "reloads_refused", "reload refused");
      for (const name of Object.keys(columns).filter((name) => name.startsWith("ended_"))) {
        const reason = name.slice(6);
        if (ORDERLY.includes(reason)) add("leave", name, "worker left");
        else add("death", name, "worker died: " + reason.replaceAll("_", " "));
      }
    }
  }

  // ---- charts

  const CHARTS = [
    { title: "Requests", unit: rate, series: [["requests", "a second", "s1"]] },
    { title: "Latency", unit: latency, decades: true, series: [["p50", "median", "s1"], ["p95", "95 %", "s2"], ["p99", "99 %", "s3"]] },
    { title: "Errors", unit: rate, series: [["client", "4xx", "s3"], ["server", "5xx", "s4"], ["none", "client left", "s2"]] },
    { title: "Cache hits", unit: percent, most: 1, series: [["hits", "of look-ups", "s1"]] },
    { title: "Database pool", unit: pieces, whole: true, series: [["used", "in use", "s1"], ["open", "open", "s2"], ["waiting", "waiting", "s4"]] },
    { title: "At work", unit: pieces, whole: true, series: [["flight", "requests", "s1"], ["serving", "workers", "s2"], ["clients", "connections", "s3"]] },
  ];
  // The shortest time that the latency chart has room for.
  const LEAST = 0.0001;
  const HEIGHT = 150, LEFT = 52, RIGHT = 6, TOP = 16, BOTTOM = 20;

  function frame(chart, index) {
    chart.svg = draw("svg", { role: "img", tabindex: 0, "aria-labelledby": `chart-${index}-say` });
    chart.legend = make("p", { class: "legend", "aria-hidden": "true" });
    chart.say = make("span", { class: "sr", id: `chart-${index}-say` });
    chart.empty = make("p", { class: "none empty" }, "nothing yet");
    chart.card = make("div", { class: "chart" }, make("h3", {}, chart.title), chart.legend, chart.say, chart.svg, chart.empty);
    chart.svg.addEventListener("pointermove", (event) => move(nearest(chart, event.offsetX), false));
    chart.svg.addEventListener("pointerleave", () => move(null, false));
    chart.svg.addEventListener("blur", () => move(null, false));
    chart.svg.addEventListener("keydown", (event) => {
      const last = points.length - 1, here = cursor ?? last;
      const to = { ArrowLeft: here - 1, ArrowRight: here + 1, PageUp: here - 30, PageDown: here + 30, Home: 0, End: last, Escape: null }[event.key];
      if (to === undefined || last < 0) return;
      event.preventDefault();
      move(to === null ? null : Math.min(last, Math.max(0, to)), true, chart);
    });
    return chart.card;
  }
  const x = (chart, when) => LEFT + (1 - (newest() - when) / KEPT) * (chart.width - LEFT - RIGHT);
  const newest = () => points.length ? points[points.length - 1].at : 0;
  function nearest(chart, wanted) {
    let best = null;
    points.forEach((one, index) => {
      if (best === null || Math.abs(x(chart, one.at) - wanted) < Math.abs(x(chart, points[best].at) - wanted)) best = index;
    });
    return best;
  }
  function move(to, aloud, chart) {
    if (to === cursor) return;
    cursor = to;
    paint();
    if (aloud && to !== null) {
      const values = chart.series.map(([name, label]) => `${label} ${chart.unit(points[to][name])}`);
      const near = marks.filter((mark) => mark.at === points[to].at).map((mark) => mark.what);
      at("readout").textContent = [clock(points[to].at), ...values, ...near].join(", ");
    }
  }
  function top(chart) {
    if (chart.most) return chart.most;
    const values = points.flatMap((one) => chart.series.map(([name]) => one[name])).filter((value) => Number.isFinite(value));
    const most = Math.max(0, ...values);
    if (chart.decades) return most <= LEAST * 10 ? LEAST * 10 : 10 ** Math.ceil(Math.log10(most) - 1e-9);
    if (!most) return chart.whole ? 2 : 1;
    const power = 10 ** Math.floor(Math.log10(most));
    // Half of it stands on the axis, too.
    return (chart.whole ? [2, 4, 6, 10, 20] : [1, 2, 2.5, 5, 10]).map((step) => step * power).find((step) => step >= most * 0.999);
  }
  function paintOne(chart) {
    chart.width = chart.svg.clientWidth || 360;
    const most = top(chart), shown = points[cursor ?? points.length - 1];
    const decades = Math.round(Math.log10(most / LEAST));
    const share = (value) => chart.decades ? Math.log10(Math.max(value, LEAST) / LEAST) / decades : value / most;
    const y = (value) => TOP + (1 - Math.min(1, share(value))) * (HEIGHT - TOP - BOTTOM);
    const steps = chart.decades ? [...Array(decades + 1).keys()].map((step) => LEAST * 10 ** step) : [0, most / 2, most];
    const parts = [];
    steps.forEach((step, index) => {
      parts.push(draw("line", { class: index ? "grid" : "axis", x1: LEFT, x2: chart.width - RIGHT, y1: y(step), y2: y(step) }));
      parts.push(draw("text", { x: LEFT - 6, y: y(step) + 4, "text-anchor": "end" }, chart.unit(step).replace("/s", "")));
    });
    for (const minutes of [15, 10, 5, 0]) {
      const when = x(chart, newest() - minutes * 60000);
      const anchor = minutes === 15 ? "start" : minutes ? "middle" : "end";
      parts.push(draw("text", { x: when, y: HEIGHT - 5, "text-anchor": anchor }, minutes ? `−${minutes} min` : "now"));
    }
    const drawn = new Set();
    // Those that matter lie above.
    const leaves = (mark) => mark.kind === "leave";
    for (const mark of [...marks.filter(leaves), ...marks.filter((mark) => !leaves(mark))]) {
      const when = x(chart, mark.at).toFixed(0);
      if (drawn.has(mark.kind + when)) continue;
      drawn.add(mark.kind + when);
      const line = draw("line", { class: "m-" + mark.kind, x1: when, x2: when, y1: TOP, y2: HEIGHT - BOTTOM });
      line.append(draw("title", {}, `${clock(mark.at)} ${mark.what}`));
      parts.push(line);
    }
    // Signs that would lie upon each other stand side by side, each once.
    const signs = [];
    for (const mark of marks.filter((mark) => !leaves(mark))) {
      const when = x(chart, mark.at), last = signs[signs.length - 1];
      if (!last || when - last.when > 12 + 6 * last.kinds.size) signs.push({ when, kinds: new Set([mark.kind]) });
      else last.kinds.add(mark.kind);
    }
    for (const { when, kinds } of signs) {
      const text = draw("text", { x: when.toFixed(0), y: TOP - 4, "text-anchor": "middle" });
      text.append(...[...kinds].map((kind) => draw("tspan", { class: "m-" + kind }, SIGNS[kind])));
      parts.push(text);
    }
    for (const [name, , look] of chart.series) {
      let path = "", open = false, lone = null;
      points.forEach((one, index) => {
        const value = one[name];
        // A line does not go on over a time of which nothing is known.
        const gap = index > 0 && one.at - points[index - 1].at > 3 * EVERY;
        if (value === null || (gap && open)) open = false;
        if (value === null) return;
        const step = `${x(chart, one.at).toFixed(1)} ${y(value).toFixed(1)}`;
        path += (open ? "L" : "M") + step + (open ? "" : "h0.1");
        open = true;
        lone = value;
      });
      if (lone !== null) parts.push(draw("path", { class: "series " + look, d: path, "stroke-linecap": "round" }));
    }
    if (cursor !== null && shown) {
      const when = x(chart, shown.at);
      parts.push(draw("line", { class: "cursor", x1: when, x2: when, y1: TOP, y2: HEIGHT - BOTTOM }));
    }
    put(chart.svg, ...parts);
    const words = chart.series.map(([name, label, look]) => {
      const colour = make("i", { class: look, "aria-hidden": "true" });
      return make("span", {}, colour, `${label} ${shown ? chart.unit(shown[name]) : "–"}`);
    });
    if (cursor !== null && shown) words.unshift(make("span", {}, clock(shown.at)));
    put(chart.legend, ...words);
    chart.empty.hidden = points.some((one) => chart.series.some(([name]) => one[name] !== null));
    const now = points[points.length - 1];
    chart.say.textContent = `${chart.title}, last 15 minutes; now ` +
      chart.series.map(([name, label]) => `${label} ${now ? chart.unit(now[name]) : "unknown"}`).join(", ");
  }
  function paint() { CHARTS.forEach(paintOne); }

  // ---- tables and lists

  function table(element, caption, heads, lines, none) {
    if (!lines.length) return put(element, make("caption", { class: "sr" }, caption), make("tbody", {}, make("tr", {}, make("td", { class: "none wide" }, none))));
    const head = heads.map(([name, look]) => make("th", { scope: "col", role: "columnheader", class: look }, name));
    const body = lines.map((cells) => make("tr", { role: "row" }, ...cells.map((cell, index) => {
      const [name, look] = heads[index];
      return index ? make("td", { role: "cell", class: look, "data-of": name }, cell) : make("th", { scope: "row", role: "rowheader", class: look }, cell);
    })));
    put(element, make("caption", { class: "sr" }, caption), make("thead", {}, make("tr", { role: "row" }, ...head)), make("tbody", {}, ...body));
    element.setAttribute("role", "table");
  }
  function request(one) {
    return `${one.method} ${one.path}, ${one.phase} for ${duration(one.age_seconds)}`;
  }
  function requests(all, more) {
    if (!all.length) return "";
    const shown = all.slice().sort((a, b) => b.age_seconds - a.age_seconds).slice(0, 4);
    const items = shown.map((one) => make("li", {}, make("code", {}, request(one))));
    const left = Math.max(more, all.length) - shown.length;
    if (left > 0) items.push(make("li", { class: "none" }, `and ${left} more`));
    return make("ul", {}, ...items);
  }
  function showWorkers() {
    const lines = status.workers.map((one) => {
      const silent = one.state !== "booting" && one.silent_seconds >= 2;
      const look = silent ? "bad" : one.state === "serving" ? "good" : "warn";
      const state = silent ? `${one.state}, silent for ${duration(one.silent_seconds)}` : one.state;
      return [`w${one.slot}`, make("span", { class: "state " + look }, state), String(one.pid), String(one.generation),
        duration(one.uptime_seconds), count(one.requests), count(one.connections), bytes(one.anonymous_bytes), duration(one.cpu_seconds),
        requests(one.requests_in_flight, one.in_flight) || make("span", { class: "none" }, "none")];
    });
    const heads = [["worker"], ["state"], ["pid", "n"], ["generation", "n"], ["age", "n"], ["requests", "n"], ["connections", "n"],
      ["own memory", "n"], ["CPU", "n"], ["current requests", "wide"]];
    table(at("workers-table"), "Workers", heads, lines, "there is no worker");
  }
  function showDeaths() {
    const items = status.deaths.map((one) => make("li", {},
      make("b", {}, `${duration(one.ago_seconds)} ago`), ` w${one.slot}, pid ${one.pid}: `, make("b", {}, one.cause),
      make("span", { class: "quiet" }, ` after ${duration(one.age_seconds)} and ${count(one.requests)} requests`),
      one.in_flight ? make("ul", {}, ...one.requests_in_flight.map((lost) => make("li", {}, make("code", {}, request(lost)))),
        one.in_flight > one.requests_in_flight.length ? make("li", {}, `and ${one.in_flight - one.requests_in_flight.length} more`) : null) : null));
    put(at("deaths"), ...(items.length ? items : [make("li", { class: "none" }, "nobody has died")]));
  }
  function showMarks() {
    const items = marks.slice(-40).reverse().map((mark) => make("li", {},
      make("span", { class: "mark " + mark.kind, "aria-hidden": "true" }, SIGNS[mark.kind]), ` ${clock(mark.at)} ${mark.what}`));
    put(at("marks"), ...(items.length ? items : [make("li", { class: "none" }, "none in the last 15 minutes")]));
    const last = status && status.server.last_reload;
    const before = last ? `The last reload: ${last.replaceAll("\\x22", "'")}` : "";
    const starting = status ? status.workers.filter((one) => one.generation > status.server.generation) : [];
    const since = starting.length ? ` w${starting[0].slot} has been starting for ${duration(starting[0].uptime_seconds)}.` : "";
    at("reload").textContent = status && status.server.is_reloading ? `A reload is on trial; the old settings serve until a worker with the new ones does.${since}` : before;
  }
  function showNamed(id, heads, all, none) {
    const lines = all.map((one) => heads.map(([name, , of]) => of ? of(one) : String(one[name])));
    table(at(id), id, heads, lines, none);
  }
  const keyOf = (one) => JSON.stringify([one.name, one.kind, one.labels]);
  const allOf = (one) => one.kind === "histogram" ? one.counts[one.counts.length - 1] : one.value;
  function keepOwn(told, now) {
    if (told) owned.push({ at: now, of: new Map(told.map((one) => [keyOf(one), one])) });
    // One that is a minute old is still needed to look back to.
    while (owned.length > 1 && (owned[1].at <= now - OWN_KEPT || owned[0].at > now)) owned.shift();
  }
  function spread(one, before) {
    let counts = one.counts, sum = one.sum, whole = true;
    if (before && allOf(one) > allOf(before)) {
      [counts, sum, whole] = [counts.map((value, index) => value - before.counts[index]), sum - before.sum, false];
    }
    const all = counts[counts.length - 1], last = one.bounds[one.bounds.length - 1];
    if (!all) return "";
    const below = (share) => {
      const value = reach(one.bounds, counts, share);
      return value === Infinity ? "> " + number(last) : number(value);
    };
    return `mean ${number(sum / all)}, median ${below(0.5)}, 95 % ${below(0.95)}` + (whole ? ", of all so far" : "");
  }
  function own(one) {
    const first = owned[0], before = first.of.get(keyOf(one)), seconds = (owned[owned.length - 1].at - first.at) / 1000;
    const known = before && seconds > 0 && allOf(one) >= allOf(before);
    const labels = Object.entries(one.labels).map(([label, value]) => `${label}="${value}"`).join(", ");
    return [make("span", {}, make("code", {}, one.name + (labels && `{${labels}}`)), make("span", { class: "quiet help" }, one.help)),
      one.kind, count(allOf(one)), one.kind === "gauge" ? "" : rate(known ? (allOf(one) - allOf(before)) / seconds : null),
      one.kind === "histogram" ? spread(one, before) : ""];
  }
  function showOwn() {
    if (!status) return;
    at("own-tools").hidden = !(status.app_metrics || []).length;
    const wanted = at("find-own").value.toLowerCase();
    const all = (status.app_metrics || []).filter((one) => `${one.name} ${Object.entries(one.labels).flat().join(" ")} ${one.help}`.toLowerCase().includes(wanted));
    const lines = all.slice(0, OWN_SHOWN).map(own);
    if (all.length > OWN_SHOWN) lines.push([make("span", { class: "none" }, `and ${all.length - OWN_SHOWN} more: find`), "", "", "", ""]);
    table(at("own"), "Figures of the app's own", [["name", "wide"], ["kind"], ["now", "n"], ["a second", "n"], ["spread", "wide"]], lines,
      wanted ? "no such figure" : "the app counts nothing of its own");
  }
  function showSettings() {
    if (!status) return;
    const wanted = at("find").value.toLowerCase(), changed = at("changed").checked;
    const lines = Object.entries(status.settings)
      .filter(([key, { value, origin }]) => (!changed || origin !== "default") && `${key} ${value} ${origin}`.toLowerCase().includes(wanted))
      .map(([key, { value, origin }]) => [make("code", {}, key), make("code", {}, value), origin]);
    table(at("settings"), "Settings", [["setting"], ["value", "wide"], ["origin", "wide"]], lines, "no such setting");
  }
  function showMinutes() {
    const lines = [];
    for (let minute = 0; minute < 15; minute += 1) {
      const end = newest() - minute * 60000;
      const within = points.filter((one) => one.at <= end && one.at > end - 60000);
      if (!within.length) continue;
      const last = within[within.length - 1], mean = (name) => {
        const known = within.map((one) => one[name]).filter((value) => value !== null);
        return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
      };
      const near = marks.filter((mark) => mark.at <= end && mark.at > end - 60000).map((mark) => mark.what).join("; ");
      lines.push([clock(last.at), rate(mean("requests")), latency(last.p50), latency(last.p95), latency(last.p99), rate(mean("client")),
        rate(mean("server")), percent(mean("hits")), pieces(mean("used")), near]);
    }
    table(at("minutes"), "By minute", [["until"], ["requests", "n"], ["median", "n"], ["95 %", "n"], ["99 %", "n"], ["4xx", "n"], ["5xx", "n"],
      ["cache hits", "n"], ["pool in use", "n"], ["events"]], lines, "nothing yet");
  }
  function showTiles() {
    const now = points[points.length - 1];
    if (!now) return;
    const tiles = [[rate(now.requests), "requests"], [latency(now.p50), "median"], [latency(now.p99), "99 % within"],
      [rate(now.server), "5xx"], [percent(now.hits), "cache hits"], [now.open === null ? "–" : `${count(now.used)} of ${count(now.open)}`, "pool in use"],
      [`${count(now.serving)} of ${count(now.wanted)}`, "workers serve"]];
    put(at("tiles"), ...tiles.map(([value, name]) => make("li", {}, make("b", {}, value), make("span", {}, name))));
  }
  function badge(look, word) {
    const badge = at("health");
    badge.className = "badge " + look;
    if (badge.textContent !== word) badge.textContent = word;
  }
  function showServer() {
    const { server, settings } = status;
    const name = (settings.proc_name ? settings.proc_name.value : "ferricorn").replaceAll('"', "");
    at("name").textContent = name;
    document.title = `${name} – ${server.workers_wanted} workers`;
    const serving = status.workers.filter((one) => one.state === "serving" && one.silent_seconds < 2).length;
    const [look, word] = server.is_leaving ? ["warn", "stopping"] : server.master_silent_seconds >= 2 ? ["bad", "the master is silent"]
      : serving === 0 ? ["bad", "nobody serves"] : serving < server.workers_wanted ? ["warn", `${serving} of ${server.workers_wanted} serve`] : ["good", "serving"];
    badge(look, word);
    at("about").textContent = `Ferricorn ${server.version}, master ${server.master_pid}, up for ${duration(server.uptime_seconds)}, generation ${server.generation}` +
      (server.is_reloading ? `, generation ${server.generation + 1} on trial` : "");
  }
  function show() {
    read();
    showTiles();
    paint();
    showMarks();
    showMinutes();
    if (!status) return;
    showServer();
    showWorkers();
    showDeaths();
    const n = (name) => [name, "n", (one) => count(one[name])];
    const ratio = ["hit rate", "n", (one) => one.hits + one.misses ? percent(one.hits / (one.hits + one.misses)) : "–"];
    showNamed("caches", [["name", "wide"], ratio, n("hits"), n("misses"), n("evictions"), n("entries"), ["bytes", "n", (one) => bytes(one.bytes)]],
      status.caches || [], "there is no cache");
    showNamed("programs", [["name", "wide"], n("children"), n("waiting"), n("calls"), n("failures"), n("timeouts"), n("restarts")],
      status.programs || [], "there is no program");
    showOwn();
  }

  // ---- asking

  async function ask(path) {
    const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(8000) });
    if (!answer.ok) throw new Error(`${path} is answered ${answer.status}`);
    return answer.json();
  }
  async function look() {
    const last = rows.length ? rows[rows.length - 1][0] : 0;
    try {
      const [history, told] = await Promise.all([ask(`history?since=${last}`), ask("status")]);
      columns = Object.fromEntries(history.columns.map((name, index) => [name, index]));
      bounds = history.latency_bounds;
      // The server's clock, as in its log, and not that of whoever looks.
      offset = history.clock - history.now;
      // After a start of the whole server the clock may be another.
      if (rows.length && history.now < last) rows = [];
      rows = rows.concat(history.rows).filter((row) => row[0] > history.now - KEPT);
      const first = !status;
      const settings = status && JSON.stringify(status.settings);
      // Another master counts from zero.
      if (status && status.server.master_pid !== told.server.master_pid) owned = [];
      status = told;
      keepOwn(told.app_metrics, history.now);
      if (first || settings !== JSON.stringify(told.settings)) showSettings();
      failed = 0;
      at("trouble").hidden = true;
      show();
    } catch (error) {
      failed += 1;
      // One that is missed is usual while a reload replaces the process.
      if (failed > 2) {
        // What is shown is old.
        badge("bad", "no answer");
        at("trouble").hidden = false;
        at("trouble").textContent = `No answer from the server, tried ${failed} times: ${error.message}`;
      }
    }
    document.body.dataset.looks = Number(document.body.dataset.looks || 0) + 1;
  }
  let timer = null;
  async function run() {
    clearTimeout(timer);
    // Nobody looks, so nobody asks.
    if (document.hidden) return;
    await look();
    timer = setTimeout(run, EVERY);
  }
  put(at("charts"), ...CHARTS.map(frame));
  at("find").addEventListener("input", showSettings);
  at("find-own").addEventListener("input", showOwn);
  at("changed").addEventListener("change", showSettings);
  document.addEventListener("visibilitychange", run);
  new ResizeObserver(paint).observe(at("charts"));
  run();
})();
