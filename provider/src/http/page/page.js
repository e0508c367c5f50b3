// The owner's page: asks its own daemon how it is, and shows that. All text is set as text.
'use strict';

const EVERY_MS = 2000;
const EARNINGS_EVERY_MS = 10000;
const DAY_MS = 86400000;
const at = (id) => document.getElementById(id);
let timer = 0;
let newest = 0;
let summedAt = 0;
let endedThen = -1;
let providerKey = '';
let jobsShown = '';

// What did not change is not said again, so that no reader reads it again.
const say = (id, text) => {
  const element = at(id);
  if (element.textContent !== String(text)) element.textContent = text;
};

const gram = (nanograms) => {
  const digits = String(nanograms).padStart(10, '0');
  const rest = digits.slice(-9).replace(/0+$/, '');
  return digits.slice(0, -9) + (rest && '.' + rest) + ' GRAM';
};

const bytes = (count) => {
  if (count === null || count === undefined) return 'not known';
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return (unit === 0 ? count : count.toFixed(1)) + ' ' + units[unit];
};

const span = (ms) => {
  if (ms < 1000) return ms + ' ms';
  const seconds = ms / 1000;
  if (seconds < 60) return seconds.toFixed(1) + ' s';
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return minutes + ' min';
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? hours + ' h ' + (minutes % 60) + ' min' : Math.floor(hours / 24) + ' days';
};

const clock = (ms) => new Date(ms).toLocaleString();
// Today's times without their day.
const short = (ms) => {
  const time = new Date(ms);
  return time.toDateString() === new Date().toDateString() ? time.toLocaleTimeString() : time.toLocaleString();
};
const rate = (number) => (number >= 100 ? number.toFixed(0) : number.toFixed(1));
const counted = (count, one, many) => count + ' ' + (count === 1 ? one : many);

const make = (name, text, kind) => {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (kind) element.className = kind;
  return element;
};

const list = (id, pairs) => at(id).replaceChildren(
  ...pairs.flatMap(([name, value]) => [make('dt', name), make('dd', value)]));

const draw = (id, name, attributes) => {
  const shape = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
  const svg = at(id);
  svg.setAttribute('viewBox', '0 0 100 30');
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.append(shape);
};

const line = (id, values) => {
  const most = Math.max(...values, 1e-9);
  const step = 100 / Math.max(values.length - 1, 1);
  const points = values.map((value, index) =>
    (index ? 'L' : 'M') + (index * step).toFixed(2) + ' ' + (29 - 28 * value / most).toFixed(2));
  at(id).replaceChildren();
  draw(id, 'path', { d: points.join('') });
};

const bars = (id, values) => {
  const most = Math.max(...values, 1e-9);
  const step = 100 / values.length;
  at(id).replaceChildren();
  values.forEach((value, index) => {
    const height = Math.max(29 * value / most, 0.6);
    draw(id, 'rect', {
      x: (index * step + 0.3).toFixed(2), y: (30 - height).toFixed(2),
      width: (step - 0.6).toFixed(2), height: height.toFixed(2),
    });
  });
};

const KINDS = { done: 'good', running: 'warn', queued: '', cancelled: '', 'not-run': '' };

// A receipt as a file, and the command that checks it.
const link = (job, digits) => {
  const link = make('a', 'download');
  link.href = '/page/receipts/' + encodeURIComponent(job.id);
  link.download = 'receipt-' + digits + '.cbor';
  link.title = 'receipt ' + job.receipt;
  link.dataset.job = job.id;
  link.setAttribute('aria-label', 'Download the receipt of job ' + digits);
  const verify = () => say('verify', 'tussah receipt verify ' + link.download + ' --key ' + providerKey);
  link.addEventListener('click', verify);
  link.addEventListener('focus', verify);
  return link;
};

const row = (job) => {
  const line = make('tr');
  const cell = (content, kind) => {
    const cell = make('td', undefined, kind);
    cell.append(content);
    line.append(cell);
  };
  const digits = job.id.replace('blake3:', '').slice(0, 12);
  const accepted = make('time', short(job.accepted_unix_ms));
  accepted.dateTime = new Date(job.accepted_unix_ms).toISOString();
  accepted.title = clock(job.accepted_unix_ms);
  cell(accepted);
  cell(job.status, job.status in KINDS ? KINDS[job.status] : 'bad');
  cell(job.receipt === null ? (job.ended ? 'none' : '') : link(job, digits));
  cell(job.model === null ? 'by manifest' : job.model);
  cell(job.finished_unix_ms === null ? '' : span(job.finished_unix_ms - job.accepted_unix_ms));
  cell(job.price_nanograms === null ? '' : gram(job.price_nanograms), 'right');
  const id = make('code', digits);
  id.title = job.id;
  cell(id);
  return line;
};

const showJobs = (jobs) => {
  const text = JSON.stringify(jobs);
  if (text === jobsShown) return;
  jobsShown = text;
  const focused = document.activeElement && document.activeElement.dataset.job;
  at('jobs').replaceChildren(...jobs.map(row));
  // Whoever was at a link stays there.
  const again = focused && [...at('jobs').querySelectorAll('a')].find((link) => link.dataset.job === focused);
  if (again) again.focus();
  at('no-jobs').hidden = jobs.length > 0;
};

const show = (status) => {
  newest = status.now_unix_ms;
  providerKey = status.provider_key;
  const words = { ready: 'Ready', draining: 'Shutting down', 'not-ready': 'Not ready' };
  say('state-text', words[status.state] + (status.reason ? ': ' + status.reason : ''));
  at('state').className = 'state ' + status.state;
  say('uptime', 'up for ' + span(status.uptime_ms));
  say('running', status.jobs_running);
  say('running-max', 'of ' + status.jobs_running_max);
  say('waiting', status.jobs_waiting);
  say('waiting-max', 'of ' + status.jobs_waiting_max);
  say('jobs-rate', rate(status.rates.jobs_per_second * 60));
  say('tokens-rate', rate(status.rates.generated_tokens_per_second));
  line('jobs-chart', status.history.map((each) => each.jobs_per_second));
  line('tokens-chart', status.history.map((each) => each.generated_tokens_per_second));
  const worker = status.worker;
  say('device', worker ? worker.device : 'no worker is ready');
  say('device-memory', bytes(worker && worker.memory_bytes));
  say('isolation', worker ? worker.isolation : 'not known');
  at('isolation').className = worker && !worker.is_isolated ? 'warn' : '';
  const counts = status.since_start;
  say('memory', bytes(status.resident_bytes));
  say('connections', counts.connections_open + ' open, ' + counts.connections_refused
    + ' refused, ' + counts.connections_slow + ' too slow');
  list('counts', [
    ['Accepted', counts.accepted],
    ['Done', counts.done],
    ['Failed', counts.failed],
    ['Ended without a run', counts.not_run],
    ['Refused', counts.refused + counts.refused_full],
    ['Workers lost', counts.workers_lost],
    ['Tokens', counts.prompt_tokens + ' read, ' + counts.generated_tokens + ' generated'],
  ]);
  showJobs(status.recent_jobs);
  say('version', 'tussah ' + status.version);
};

const showEarnings = (earnings) => {
  const days = new Map(earnings.days.map((day) => [day.day, day]));
  const none = { jobs: 0, credit_nanograms: '0', channel_nanograms: '0' };
  const all = [];
  for (let ms = earnings.from_unix_ms; ms <= earnings.today_unix_ms; ms += DAY_MS) {
    all.push(days.get(new Date(ms).toISOString().slice(0, 10)) || none);
  }
  const sum = (some, field) => some.reduce((total, day) => total + BigInt(day[field]), 0n);
  const total = (some) => gram(sum(some, 'credit_nanograms') + sum(some, 'channel_nanograms'));
  const spans = [['Today', 1], ['7 days', 7], [all.length + ' days', all.length]];
  list('earned', [
    ...spans.map(([name, count]) => {
      const some = all.slice(-count);
      return [name, total(some) + ', ' + counted(Number(sum(some, 'jobs')), 'job', 'jobs')];
    }),
    ['of that on credit', gram(sum(all, 'credit_nanograms'))],
    ['through channels', gram(sum(all, 'channel_nanograms'))],
  ]);
  bars('earned-chart', all.map((day) =>
    Number(BigInt(day.credit_nanograms) + BigInt(day.channel_nanograms))));
  say('earned-note', 'What receipts came to, by UTC days, as of ' + clock(earnings.as_of_unix_ms)
    + '. Credit is owed by accounts: this ledger knows of no payment for it. Channels are promises'
    + ' by vouchers, paid once they are redeemed.');
};

const turn = (isIn) => {
  at('unreached').hidden = true;
  const wasOut = !at('login').hidden;
  at('login').hidden = isIn;
  at('page').hidden = !isIn;
  if (!isIn) {
    at('page').querySelectorAll('dl[id], tbody').forEach((part) => part.replaceChildren());
    jobsShown = '';
    newest = 0;
    summedAt = 0;
    if (!wasOut) at('password').focus();
  }
};

// The answer's JSON; nothing if nobody is logged in.
const ask = async (path) => {
  const answer = await fetch(path, { cache: 'no-store' });
  if (answer.status === 401) return undefined;
  if (!answer.ok) throw new Error(String(answer.status));
  return answer.json();
};

const lookOnce = async () => {
  const status = await ask('/page/status');
  if (!status) {
    turn(false);
    return;
  }
  show(status);
  turn(true);
  const counts = status.since_start;
  const ended = counts.done + counts.failed + counts.not_run;
  if (ended !== endedThen || Date.now() - summedAt >= EARNINGS_EVERY_MS) {
    const earnings = await ask('/page/earnings');
    if (earnings) {
      showEarnings(earnings);
      endedThen = ended;
      summedAt = Date.now();
    }
  }
  at('stale').hidden = true;
};

const begin = async () => {
  const session = await ask('/page/session');
  if (session.in) {
    await lookOnce();
    return;
  }
  say('hint', session.has_password
    ? 'It was shown once; `tussah serve page` on the provider’s machine makes another one.'
    : 'There is none yet: `tussah serve page` on the provider’s machine makes one.');
  turn(false);
};

const look = async () => {
  clearTimeout(timer);
  const isIn = !at('page').hidden;
  try {
    await (isIn ? lookOnce() : begin());
  } catch {
    say('stale-since', newest ? clock(newest) : '');
    at('stale').hidden = !isIn;
    at('unreached').hidden = isIn || !at('login').hidden;
  }
  // The form waits for its reader; nobody looks at what is hidden.
  const waits = at('page').hidden ? !at('login').hidden : document.hidden;
  if (!waits) timer = setTimeout(look, EVERY_MS);
};

const logIn = async () => {
  say('refused', '');
  at('enter').disabled = true;
  try {
    const answer = await fetch('/page/login', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ password: at('password').value }),
    });
    if (answer.ok) {
      at('password').value = '';
      await begin();
      look();
    } else {
      const said = await answer.json();
      say('refused', said.error.message);
      at('password').select();
    }
  } catch {
    say('refused', 'The provider does not answer.');
  }
  at('enter').disabled = false;
};

at('login').addEventListener('submit', (event) => {
  event.preventDefault();
  logIn();
});
at('logout').addEventListener('click', async () => {
  clearTimeout(timer);
  try {
    await fetch('/page/logout', { method: 'POST' });
    turn(false);
    await begin();
  } catch {
    look();
  }
});
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && !at('page').hidden) look();
});
look();
