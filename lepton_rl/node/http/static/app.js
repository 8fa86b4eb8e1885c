"use strict";
// Everything from the node is set as text, never as markup.
const PERIOD_MS = 2000, SHOWN_S = 600, HELD = "lepton-token";
const STATES = { available: "good", allocated: "busy", reserved: "busy", releasing: "warn", drained: "warn", unverified: "warn" };
const CHARTS = [
  ["use", "util.", "utilisation", value => `${Math.round(100 * value)} %`, () => 1],
  ["watt", "power", "power_mw", value => `${Math.round(value / 1e3)} W`, gpu => gpu.power_limit_mw],
  ["heat", "temp.", "temperature_c", value => `${Math.round(value)} °C`, () => 100],
];
const $ = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
let past = new Map(), seenUntil = 0, explained = null, timer = 0;

function make(tag, text = "", className = "") {
  const found = document.createElement(tag);
  found.textContent = text;
  if (className) found.className = className;
  return found;
}

class Refused extends Error {
  constructor(status, sentence) { super(sentence); this.status = status; }
}

async function ask(path) {
  let answer;
  try {
    answer = await fetch(`/api/v1/${path}`, {
      headers: { Authorization: `Bearer ${sessionStorage.getItem(HELD)}` }, credentials: "omit", cache: "no-store",
    });
  } catch { throw new Refused(0, "the node does not answer; trying again"); }
  const body = await answer.json().catch(() => ({ error: `the node answers ${answer.status}` }));
  if (!answer.ok) throw new Refused(answer.status, body.error);
  return body;
}

function lasting(seconds) {
  const whole = Math.max(0, Math.floor(seconds)), two = number => String(number).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}:${two(whole % 60)}`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}:${two(Math.floor(whole % 3600 / 60))}:${two(whole % 60)}`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole % 86400 / 3600)} h`;
}

const gib = bytes => bytes === null ? "–" : (bytes / 2 ** 30).toFixed(1);
const watts = milliwatts => milliwatts === null ? "–" : Math.round(milliwatts / 1e3);
const clock = seconds => new Date(seconds * 1e3).toLocaleTimeString([], { hour12: false });

function said(action) {
  const placed = /^(Start|Migrate)\(job=(\d+), gpus=(?:None|\(([\d, ]*?),?\))\)$/.exec(action);
  if (placed) return `${placed[1] === "Start" ? "start" : "move"} ${placed[2]}${placed[3] ? `${placed[1] === "Start" ? " on" : " to"} GPU ${placed[3]}` : ""}`;
  const stopped = /^Preempt\(job=(\d+)\)$/.exec(action), limited = /^SetPowerLimit\(gpu=(\d+), watts=(None|[\d.]+)\)$/.exec(action);
  if (stopped) return `preempt ${stopped[1]}`;
  if (limited) return limited[2] === "None" ? `give GPU ${limited[1]} its power limit back` : `limit GPU ${limited[1]} to ${Math.round(limited[2])} W`;
  return action;
}

function first(texts, most, separator, count = texts.length) {
  const more = count - Math.min(most, texts.length);
  return texts.slice(0, most).join(separator) + (more > 0 ? `${separator}and ${more} more` : "");
}

function chart([kind, word, name, shown, top], gpu, now) {
  const figure = make("figure", "", `chart ${kind}`), caption = make("figcaption", word), drawing = document.createElementNS(SVG, "svg");
  const value = gpu[name];
  caption.append(make("b", value === null ? "–" : shown(value)));
  drawing.setAttribute("viewBox", "0 0 600 100");
  drawing.setAttribute("preserveAspectRatio", "none");
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", `GPU ${gpu.gpu}, ${name.replace(/_.*/, "")}, last 10 minutes`);
  const series = past.get(gpu.uuid);
  const highest = Math.max(top(gpu) || 1, ...(series ? series[name].filter(y => y !== null) : []));
  let line = "", before = null;
  if (series) series.time.forEach((time, index) => {
    const y = series[name][index];
    if (y === null) { before = null; return; }
    const x = 600 - (now - time) / SHOWN_S * 600;
    line += `${before !== null && time - before < 30 ? "L" : "M"}${x.toFixed(1)} ${(98 - 96 * y / highest).toFixed(1)}`;
    before = time;
  });
  const half = document.createElementNS(SVG, "line"), path = document.createElementNS(SVG, "path");
  for (const [name, place] of [["x1", 0], ["x2", 600], ["y1", 50], ["y2", 50]]) half.setAttribute(name, place);
  path.setAttribute("d", line);
  drawing.append(half, path);
  figure.append(caption, drawing);
  return figure;
}

function card(gpu, now) {
  const found = make("article", "", "gpu"), title = make("h3", `GPU ${gpu.gpu}`);
  found.dataset.gpu = gpu.gpu;
  title.append(make("span", "", "type"), make("span", gpu.state, `badge ${STATES[gpu.state] || "bad"}`));
  found.append(title);
  found.append(make("p", gpu.type, "soft"));
  const memory = `${gib(gpu.memory_used_bytes)} of ${gib(gpu.memory_total_bytes)} GiB, limit ${watts(gpu.power_limit_mw)} W`;
  const jobs = gpu.jobs.length ? `job ${first(gpu.jobs, 8, ", ")} · ` : "";
  found.append(make("p", jobs + memory));
  if (gpu.reason) found.append(make("p", gpu.reason, STATES[gpu.state] ? "warn" : "bad"));
  const charts = make("div", "", "charts");
  charts.append(...CHARTS.map(kind => chart(kind, gpu, now)));
  found.append(charts);
  return found;
}

function table(target, columns, jobs, none) {
  const head = make("thead"), heads = make("tr"), body = make("tbody");
  columns.forEach(([title, kind]) => heads.append(make("th", title, kind)));
  head.append(heads);
  jobs.forEach(job => {
    const row = make("tr");
    columns.forEach(([, kind, said], index) => {
      const cell = make("td", "", kind);
      if (index === 0) {
        const button = make("button", said(job));
        button.type = "button";
        button.dataset.job = job.job;
        button.setAttribute("aria-label", `explain job ${job.job}`);
        button.addEventListener("click", () => { explained = job.job; explain().then(() => $("explained").scrollIntoView({ block: "nearest" })); });
        cell.append(button);
      } else {
        cell.textContent = said(job);
        if (kind === "name" || kind === "user") cell.title = said(job);
      }
      row.append(cell);
    });
    body.append(row);
  });
  if (!jobs.length) {
    const cell = make("td", none, "none"), row = make("tr");
    cell.colSpan = columns.length;
    row.append(cell);
    body.append(row);
  }
  const held = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.job : null;
  target.replaceChildren(head, body);
  const again = held && target.querySelector(`[data-job="${held}"]`);
  if (again) again.focus();
}

async function explain() {
  const number = explained;
  if (number === null) return;
  let found;
  try { found = await ask(`jobs/${number}/explain`); } catch (error) { found = { state: "not to be explained", why: error.message }; }
  if (explained !== number) return;
  const rows = [["why", found.why]];
  if (found.starts_when) rows.push(["fits when", found.starts_when]);
  (found.unavailable || []).forEach(line => rows.push(["out", line]));
  if (found.waited_s !== undefined) rows.push(["has waited", lasting(found.waited_s)]);
  if (found.ahead !== undefined) rows.push(["before it", `${found.ahead} submitted earlier; ${found.policy} decides`]);
  if (found.rank) rows.push(["score", `${found.score === null ? "none yet" : Number(found.score).toPrecision(4)} (${found.score_is}): rank ${found.rank} of ${found.waiting}`]);
  (found.first || []).forEach(other => rows.push(["before it", `job ${other.job}: ${other.why}`]));
  if (found.no_score) rows.push(["score", found.no_score]);
  if (found.note) rows.push(["note", found.note]);
  $("explained-title").textContent = `Job ${number} is ${found.state}`;
  $("explanation").replaceChildren(...rows.flatMap(([term, text]) => [make("dt", term), make("dd", text)]));
  $("explained").hidden = false;
}

function showJobs(jobs, now) {
  const running = jobs.filter(job => ["starting", "running", "stopping"].includes(job.state));
  const waiting = jobs.filter(job => job.state === "waiting");
  const number = ["job", "number", job => `${job.job}`], name = ["name", "name", job => job.name], user = ["user", "user", job => job.user];
  const gpus = ["GPUs", "number", job => `${job.gpus}`], asked = ["asked", "number", job => job.requested_s === null ? "–" : lasting(job.requested_s)];
  table($("running"), [number, name, user, gpus, ["ran", "number", job => lasting(now - (job.start_time || now))], asked, ["state", "", job => job.state]], running, "nothing runs");
  table($("queue"), [number, name, user, gpus, ["waited", "number", job => lasting(now - job.submit_time)], asked], waiting, "nothing waits");
  $("running-title").textContent = `Running (${running.length})`;
  $("queue-title").textContent = `Waiting (${waiting.length})`;
}

function showDecisions(decisions) {
  $("decisions").replaceChildren(...decisions.reverse().map(decision => {
    const line = make("li"), by = make("span", decision.detail.by), time = make("time", clock(decision.time));
    if (decision.fallback_reason) {
      by.append(" ", make("span", "fallback", "badge warn"));
      line.className = "fallback";
    }
    line.append(time, by, make("span", `${first(decision.detail.actions.map(said), 5, "; ", decision.detail.count) || "nothing"} (${Math.round(decision.decision_s * 1e6)} µs)`, "what"));
    if (decision.fallback_reason) line.append(make("span", decision.fallback_reason, "why"));
    return line;
  }));
}

function remember(telemetry) {
  for (const gpu of telemetry.gpus) {
    const series = past.get(gpu.uuid) || { time: [], utilisation: [], power_mw: [], temperature_c: [] };
    for (const name of Object.keys(series)) series[name].push(...gpu[name]);
    const old = series.time.findIndex(time => time >= telemetry.time - SHOWN_S);
    if (old > 0) for (const name of Object.keys(series)) series[name].splice(0, old);
    past.set(gpu.uuid, series);
    if (series.time.length) seenUntil = Math.max(seenUntil, series.time[series.time.length - 1]);
  }
}

function show(status) {
  $("simulated").hidden = !status.simulated_devices;
  const jobs = Object.entries(status.jobs).filter(([, count]) => count).map(([state, count]) => `${count} ${state}`);
  $("about").textContent = `under ${status.policy} · ${jobs.join(", ") || "no jobs"} · ${clock(status.time)}`;
  $("alerts").replaceChildren(...status.alerts.map(alert => make("li", `${alert.text} (since ${clock(alert.since)})`)));
  $("gpus").replaceChildren(...status.gpus.map(gpu => card(gpu, status.time)));
  const fallbacks = Object.values(status.fallbacks).reduce((sum, count) => sum + count, 0);
  const median = status.decision_p50_s === null ? "" : `, median ${Math.round(status.decision_p50_s * 1e6)} µs`;
  $("counts").textContent = `${status.decisions} since the start, ${fallbacks} of them by the fallback${median}`;
}

function say(sentence) {
  $("trouble").textContent = sentence;
  $("trouble").hidden = !sentence;
}

function askForToken(sentence = "") {
  sessionStorage.removeItem(HELD);
  past = new Map(); seenUntil = 0; explained = null;
  for (const id of ["main", "leave", "simulated", "explained"]) $(id).hidden = true;
  $("about").textContent = $("who").textContent = "";
  $("enter").hidden = false;
  $("token").focus();
  say(sentence);
}

async function refresh() {
  clearTimeout(timer);
  if (!sessionStorage.getItem(HELD)) { askForToken(); return; }
  try {
    if ($("main").hidden) {
      const me = await ask("me");
      $("who").textContent = `${me.name} (${me.role})`;
    }
    if (!document.hidden) {
      const [status, jobs, decisions, telemetry] = await Promise.all(
        [ask("status"), ask("queue"), ask("decisions?last=15"), ask(seenUntil ? `telemetry?since=${seenUntil}` : `telemetry?last_s=${SHOWN_S}`)]);
      remember(telemetry);
      show(status);
      showJobs(jobs, status.time);
      showDecisions(decisions);
      await explain();
      $("enter").hidden = true;
      $("main").hidden = $("leave").hidden = false;
    }
    say("");
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.status === 401) { askForToken("this token opens nothing here, or not any more"); return; }
    say(error.message);
  } finally {
    if (sessionStorage.getItem(HELD)) timer = setTimeout(refresh, PERIOD_MS);
  }
}

$("enter").addEventListener("submit", event => {
  event.preventDefault();
  sessionStorage.setItem(HELD, $("token").value.trim());
  $("token").value = "";
  refresh();
});
$("leave").addEventListener("click", () => askForToken());
$("close").addEventListener("click", () => { explained = null; $("explained").hidden = true; });
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
refresh();
