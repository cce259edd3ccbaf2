// Shows the stream of the server that this page came from. What events say is put into the page as text, never as HTML.

const shownEvents = 200
/** Values in the line of a tile: one a second. */
const historyLength = 60

const byId = (id) => document.getElementById(id)
const list = byId('events')
const number = new Intl.NumberFormat('en')

/** Topics by name: its check box. */
const topics = new Map()
/** Rows that wait for the next frame, oldest first. */
let waiting = []
let paused = false
let seen = 0
/** Resumes after what was shown, also with another filter. */
let cursor
let source
/** Kept by this page alone, and gone with it. */
let token

/** The headers of a request. */
const credentials = () => (token === undefined ? {} : { authorization: `Bearer ${token}` })

/** Where to start so that there is something to see: a little before the newest. */
async function beginning() {
  try {
    const response = await fetch('v1/status', { headers: credentials() })
    if (response.status === 401) return undefined
    const { epoch, newest, floor } = await response.json()
    return `${epoch}:${Math.max(floor, newest - 60)}`
  } catch {
    return 'latest'
  }
}

/** A browser sends no header with an `EventSource`, and a token does not belong into a URL: a ticket stands for it, once. */
async function ticket() {
  const response = await fetch('v1/tickets', { method: 'POST', headers: credentials() })
  return (await response.json()).ticket
}

async function connect(from) {
  source?.close()
  byId('login').hidden = from !== undefined
  if (from === undefined) {
    say('refused', token === undefined ? 'a token is needed' : 'the token is not valid')
    return
  }
  const query = new URLSearchParams({ from })
  const wanted = byId('topics')
    .value.split(/[\s,]+/)
    .filter(Boolean)
  for (const topic of wanted) query.append('topic', topic)
  say('connecting')
  if (token !== undefined) query.set('ticket', await ticket().catch(() => ''))
  source = new EventSource(`v1/events?${query}`)
  source.onopen = () => say('live')
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) comeBack(from)
    else say('connecting', 'connection lost, coming back')
  }
  source.onmessage = ({ data }) => takeBatch(JSON.parse(data))
  source.addEventListener('gap', ({ data }) => takeLoss(JSON.parse(data).gap, gapText))
  source.addEventListener('reset', ({ data }) => takeLoss(JSON.parse(data).reset, resetText))
  source.addEventListener('closed', ({ data }) => {
    const { closed } = JSON.parse(data)
    addNote(`The server ended the stream: ${closed.message}`)
    if (closed.retry !== null) return
    source.close()
    say('refused', closed.code)
  })
}

/** A stream that was refused may be so because its ticket was used. */
async function comeBack(from) {
  if (token === undefined) {
    say('refused', 'the server refused the stream')
    return
  }
  say('connecting', 'connection lost, coming back')
  setTimeout(async () => connect((await beginning()) && (cursor ?? from)), 1000 + 2000 * Math.random())
}

function say(state, text = state) {
  byId('state').dataset.state = state
  byId('state').textContent = text
}

function takeBatch(batch) {
  moveTo(batch.cursor)
  seen++
  for (const event of batch.events) {
    learnTopic(event.topic)
    watchHost(event)
    waiting.push({ ...event, index: batch.index, at: new Date() })
  }
  if (batch.events.some(({ topic }) => topic === 'Host')) watchNetwork(batch.events)
  schedule()
}

function takeLoss(loss, text) {
  moveTo(loss.cursor)
  addNote(text(loss))
}

function gapText({ after, before, reason }) {
  return `Gap: batches after ${number.format(after)} and before ${number.format(before)} may be missing (${reason}).`
}

function resetText({ after, before }) {
  return `Reset: the server began a new history. What came after ${number.format(after)} of the old one may be missing; this one goes on with ${number.format(before)}.`
}

function moveTo(position) {
  cursor = position
  const at = position.lastIndexOf(':')
  byId('epoch').textContent = position.slice(0, at)
  byId('index').textContent = number.format(Number(position.slice(at + 1)))
}

function addNote(note) {
  waiting.push({ note, at: new Date() })
  schedule()
}

// --- The list. A burst is drawn once a frame, and only what will be seen of it.

let scheduled = false
function schedule() {
  if (waiting.length > shownEvents * 2) waiting = waiting.slice(-shownEvents)
  if (scheduled || paused) return
  scheduled = true
  // Frames stop while the page is in the background; the list is then drawn when it comes back.
  requestAnimationFrame(draw)
}

function draw() {
  scheduled = false
  const rows = waiting.slice(-shownEvents).map(rowOf)
  waiting = []
  byId('seen').textContent = number.format(seen)
  list.prepend(...rows.reverse())
  while (list.childElementCount > shownEvents) list.lastElementChild.remove()
  byId('empty').hidden = list.childElementCount > 0
}

function rowOf(entry) {
  const item = document.createElement('li')
  const time = entry.at.toTimeString().slice(0, 8)
  if (entry.note !== undefined) {
    item.className = 'note'
    item.append(cell('time', time), cell('text', entry.note))
    return item
  }
  item.dataset.topic = entry.topic
  item.hidden = topics.get(entry.topic)?.checked === false
  const details = document.createElement('details')
  const row = document.createElement('summary')
  row.className = 'row'
  row.append(
    cell('time', time),
    cell('index', number.format(entry.index)),
    cell('topic', entry.topic),
    cell('type', entry.type),
    cell('key', entry.key),
    // The whole of it is below; this line shows less than its width anyway.
    cell('payload', JSON.stringify(entry.payload).slice(0, 500)),
  )
  const whole = document.createElement('pre')
  details.append(row, whole)
  details.addEventListener('toggle', () => {
    const { topic, type, key, namespace, filterKeys, payload } = entry
    whole.textContent = JSON.stringify({ topic, type, key, namespace, filterKeys, payload }, null, 2)
  })
  item.append(details)
  return item
}

function cell(kind, text) {
  const span = document.createElement('span')
  span.className = kind
  span.textContent = text
  return span
}

// --- What is followed, and what of it is shown.

byId('login').addEventListener('submit', async (event) => {
  event.preventDefault()
  token = byId('token').value.trim()
  byId('token').value = ''
  connect(await beginning())
})

byId('filter').addEventListener('submit', (event) => {
  event.preventDefault()
  connect(cursor ?? 'latest')
})

byId('pause').addEventListener('click', ({ target }) => {
  paused = !paused
  target.setAttribute('aria-pressed', String(paused))
  target.textContent = paused ? 'Go on' : 'Pause'
  if (!paused) schedule()
})

function learnTopic(topic) {
  if (topics.has(topic) || topics.size >= 50) return
  const box = document.createElement('input')
  box.type = 'checkbox'
  box.checked = true
  box.addEventListener('change', () => {
    for (const item of list.children) if (item.dataset.topic === topic) item.hidden = !box.checked
  })
  const label = document.createElement('label')
  label.append(box, topic)
  byId('shown').append(label)
  topics.set(topic, box)
}

// --- The machine, if the server publishes its counters.

const samples = { cpu: [], memory: [], load: [], network: [] }

function watchHost({ topic, payload }) {
  if (topic !== 'Host' || typeof payload?.memory?.total !== 'number') return
  byId('host').hidden = false
  const { cpu, memory, load } = payload
  if (typeof cpu?.use === 'number') plot('cpu', cpu.use, `${Math.round(cpu.use * 100)} %`, 1)
  const used = memory.used / memory.total
  plot('memory', used, `${Math.round(used * 100)} % of ${bytes(memory.total)}`, 1)
  if (Array.isArray(load)) plot('load', load[0], `${load[0].toFixed(2)} on ${cpu?.count ?? '?'} CPUs`)
}

/** The traffic of all interfaces but the one to itself. */
function watchNetwork(events) {
  let [rx, tx] = [0, 0]
  for (const { topic, key, payload } of events) {
    if (topic !== 'Network' || key === 'lo') continue
    rx += Number(payload?.rxBytesPerSecond) || 0
    tx += Number(payload?.txBytesPerSecond) || 0
  }
  plot('network', rx + tx, `${bytes(rx)}/s, ${bytes(tx)}/s`)
}

/** Adds a value to a tile. Its line reaches the top at `top`, or at the largest value. */
function plot(tile, value, text, top) {
  const values = samples[tile]
  values.push(value)
  if (values.length > historyLength) values.shift()
  const height = top ?? Math.max(1, ...values)
  const points = values.map((v, i) => {
    const x = historyLength - values.length + i + 1
    return `${x},${(31 - (30 * Math.min(v, height)) / height).toFixed(1)}`
  })
  byId(tile).querySelector('.value').textContent = text
  byId(tile).querySelector('polyline').setAttribute('points', points.join(' '))
}

function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  const power = value < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(value) / 10))
  return `${(value / 1024 ** power).toFixed(power === 0 ? 0 : 1)} ${units[power]}`
}

connect(await beginning())
