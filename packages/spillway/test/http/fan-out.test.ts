import assert from 'node:assert/strict'
import { createHook } from 'node:async_hooks'
import { test } from 'node:test'
import { type BrokerOptions, LocalBroker, type SubscribeOptions } from '../../src/core/broker.ts'
import { everything, type Rights } from '../../src/core/rights.ts'
import type { BrokerSubscription } from '../../src/core/subscription.ts'
import { Encoder } from '../../src/http/fan-out/encoder.ts'
import { FanOut } from '../../src/http/fan-out/fan-out.ts'
import type { Piece, Sink } from '../../src/http/fan-out/sink.ts'
import { EventStream } from '../../src/http/fan-out/stream.ts'
import { type Format, ndjsonFormat, sseFormat } from '../../src/http/format.ts'
import { ManualClock } from '../support/clock.ts'
import { ManualSink } from '../support/sink.ts'
import { deferred, turn } from '../support/waiting.ts'

const stallTimeout = 30_000

interface SetupOptions extends BrokerOptions {
  heartbeat?: number
  maxAge?: number
  highWaterMark?: number
  roundInterval?: number
}

interface OpenOptions<S extends Sink> extends SubscribeOptions {
  sink?: S
  encoder?: Encoder
}

function setup({
  heartbeat = 1000,
  maxAge = 1e9,
  highWaterMark = 16_384,
  roundInterval = 0,
  ...options
}: SetupOptions = {}) {
  const clock = new ManualClock()
  const broker = new LocalBroker({ clock, capacity: 100, ...options })
  const fanOut = new FanOut(broker, clock, { heartbeat, stallTimeout, highWaterMark, roundInterval })
  const calls = { batch: 0, event: 0, heartbeat: 0 }
  const counted: Format = { ...ndjsonFormat(1000) }
  const { batch, event, heartbeat: beat } = counted
  counted.event = (...of) => {
    calls.event++
    return event(...of)
  }
  counted.batch = (...of) => {
    calls.batch++
    return batch(...of)
  }
  counted.heartbeat = (...of) => {
    calls.heartbeat++
    return beat(...of)
  }
  const leaders: BrokerSubscription[] = []
  const dismissed: BrokerSubscription[] = []
  const lead = broker.lead.bind(broker)
  broker.lead = (like) => {
    const leader = lead(like)
    leaders.push(leader)
    return leader
  }
  const dismiss = broker.dismiss.bind(broker)
  broker.dismiss = (leader) => {
    dismissed.push(leader)
    dismiss(leader)
  }
  const ndjson = new Encoder(counted)
  const open = <S extends Sink = ManualSink>({ sink: given, encoder = ndjson, ...wanted }: OpenOptions<S> = {}) => {
    const subscription = broker.subscribe({ onLag: 'skip', ...wanted })
    const sink = given ?? (new ManualSink() as unknown as S)
    const shape = JSON.stringify([wanted.topics, wanted.namespaces])
    const stream = new EventStream(fanOut, subscription, { encoder, shape, stallTimeout, maxAge })
    stream.open(sink)
    return { sink, stream, subscription }
  }
  /** Lets all turns be taken that are asked for. */
  const settle = async () => {
    await turn()
    for (let turns = 0; clock.deferred > 0; turns++) {
      assert.ok(turns < 1000, 'the turns come to an end')
      clock.runDeferred()
      await turn()
    }
  }
  /** Opens `count` streams that are level. */
  const level = async <S extends Sink = ManualSink>(count: number, wanted: OpenOptions<S> = {}) => {
    const opened = Array.from({ length: count }, () => open(wanted))
    await settle()
    for (const { stream } of opened) assert.ok(stream.group, 'the stream is level')
    return opened
  }
  const levelOne = async () => {
    const [one] = await level(1)
    assert.ok(one)
    return one
  }
  const publish = (payload: unknown = null, topic = 'T', namespace = '') =>
    broker.publish({ topic, type: 't', namespace, payload })
  const publishMany = async (count: number) => {
    for (let n = 0; n < count; n++) await publish(n)
  }
  return {
    clock,
    broker,
    fanOut,
    calls,
    leaders,
    dismissed,
    ndjson,
    open,
    settle,
    level,
    levelOne,
    publish,
    publishMany,
  }
}

const upTo = (last: number, first = 1): number[] => Array.from({ length: last - first + 1 }, (_, n) => first + n)

const isBeat = (line: string | undefined): boolean => line?.startsWith('{"progress":') ?? false

test('a silent stream gets a sign of life within every heartbeat', async () => {
  const { clock, levelOne, settle } = setup({ heartbeat: 1000 })
  const { sink } = await levelOne()
  for (let beats = 1; beats <= 20; beats++) {
    const before = sink.lines.length
    clock.advance(1001)
    await settle()
    assert.ok(sink.lines.length > before, `heartbeat ${beats}`)
    assert.ok(isBeat(sink.lines.at(-1)))
  }
  assert.ok(sink.lines.length <= 25, `${sink.lines.length} lines in 20 heartbeats`)
})

test('a stream that is busy gets no signs of life', async () => {
  const { clock, levelOne, publish, settle } = setup({ heartbeat: 1000 })
  const { sink } = await levelOne()
  for (let n = 0; n < 40; n++) {
    clock.advance(500)
    await publish()
    await settle()
  }
  assert.equal(sink.lines.filter(isBeat).length, 0)
  assert.equal(sink.lines.length, 41)
})

test('a stream that was busy and falls silent gets a sign of life within a heartbeat', async () => {
  const { clock, levelOne, publish, settle } = setup({ heartbeat: 1000 })
  const { sink } = await levelOne()
  clock.advance(730)
  await publish()
  await settle()
  clock.advance(1001)
  await settle()
  assert.ok(isBeat(sink.lines.at(-1)))
})

test('the members of a group share the bytes of a sign of life, which moves their cursor on', async () => {
  const { broker, calls, clock, level, publish, settle } = setup({ heartbeat: 1000 })
  const members = await level(100, { topics: { T: ['*'] } })
  await publish(1, 'Other')
  await settle()
  clock.advance(1001)
  await settle()
  assert.equal(calls.heartbeat, 1)
  for (const { sink } of members) assert.equal(sink.lines.at(-1), `{"progress":{"cursor":"${broker.status.cursor}"}}`)
})

test('a group that others’ events wake, but that gets none of them, still gets signs of life', async () => {
  const { clock, level, publish, settle } = setup({ heartbeat: 1000 })
  const members = await level(3, { topics: { T: ['*'] }, namespaces: ['mine'] })
  for (let n = 0; n < 50; n++) {
    clock.advance(100)
    await publish(n, 'T', 'yours')
    await settle()
  }
  for (const { sink } of members) {
    assert.deepEqual(sink.indexes, [])
    const beats = sink.lines.filter(isBeat).length
    assert.ok(beats >= 4, `${beats} signs of life in 5 heartbeats`)
  }
})

test('a member whose sink is full after a sign of life is written to only once it has drained', async () => {
  const { clock, level, publish, settle } = setup({ heartbeat: 1000 })
  const [one, two] = await level(2)
  assert.ok(one && two)
  one.sink.takes = false
  clock.advance(1001)
  await settle()
  assert.ok(one.sink.isFull && isBeat(one.sink.lines.at(-1)))
  await publish('x')
  await settle()
  assert.deepEqual(two.sink.indexes, [1])
  one.sink.takes = true
  one.sink.drain()
  one.stream.drained()
  await settle()
  assert.deepEqual(one.sink.indexes, [1])
})

test('a sink that is full gets nothing, not even signs of life, and everything in one write once it drains', async () => {
  const { clock, levelOne, publish, publishMany, settle } = setup()
  const { sink, stream } = await levelOne()
  const other = await levelOne()
  sink.takes = false
  await publish(1)
  await settle()
  assert.equal(stream.group, undefined, 'it has left the group')
  assert.equal(sink.lines.length, 2)
  await publishMany(9)
  clock.advance(stallTimeout / 2)
  await settle()
  assert.equal(sink.lines.length, 2)
  sink.takes = true
  sink.drain()
  stream.drained()
  await settle()
  assert.deepEqual(sink.indexes, upTo(10))
  assert.equal(sink.writes.length, 3, 'what waited goes out as one write')
  assert.ok(stream.group, 'it is back in the group')
  assert.deepEqual(other.sink.indexes, upTo(10))
})

test('one turn sends at most 64 KiB and one batch, however much waits', async () => {
  const { levelOne, publish, settle } = setup()
  const { sink, stream } = await levelOne()
  sink.takes = false
  const size = 40_000
  await publish('x')
  await settle()
  for (let n = 0; n < 50; n++) await publish('x'.repeat(size))
  for (let drains = 0; drains < 60 && sink.lines.length < 52; drains++) {
    const before = Buffer.concat(sink.writes).length
    sink.drain()
    stream.drained()
    await settle()
    const sent = Buffer.concat(sink.writes).length - before
    assert.ok(sent < 64 * 1024 + size + 200, `${sent} bytes in one turn`)
  }
  assert.equal(sink.lines.length, 52)
})

test('an event of a batch that streams get in different parts is made once for all of them', async () => {
  const { broker, calls, open, settle } = setup()
  const streams = Array.from({ length: 50 }, (_, n) => open({ topics: { T: [`${n}`, `${n + 1}`] } }))
  await settle()
  await broker.publish(Array.from({ length: 51 }, (_, n) => ({ topic: 'T', type: 't', key: `${n}` })))
  await settle()
  for (const [n, { sink }] of streams.entries()) {
    const { events } = JSON.parse(sink.lines.at(-1) as string) as { events: { key: string }[] }
    assert.deepEqual(
      events.map(({ key }) => key),
      [`${n}`, `${n + 1}`],
    )
  }
  assert.deepEqual([calls.batch, calls.event], [50, 51])
})

test('the bytes of a batch are made once for 1,000 streams, level or behind', async () => {
  const { calls, level, publish, publishMany, settle } = setup()
  const members = await level(1000)
  await publish('x')
  await settle()
  assert.equal(calls.batch, 1)
  const bytes = members.map(({ sink }) => sink.writes.at(-1))
  assert.ok(bytes[0] && bytes.every((each) => each === bytes[0]), 'the very same bytes')
  for (const { sink } of members.slice(0, 500)) sink.takes = false
  await publishMany(5)
  await settle()
  for (const { sink, stream } of members.slice(0, 500)) {
    sink.takes = true
    sink.drain()
    stream.drained()
  }
  await publishMany(5)
  await settle()
  assert.equal(calls.batch, 11)
  for (const { sink } of members) assert.deepEqual(sink.indexes, upTo(11))
})

test('batches of one tick leave as one write to each member', async () => {
  const { level, publishMany, settle } = setup()
  const members = await level(50)
  await publishMany(20)
  await settle()
  for (const { sink } of members) {
    assert.equal(sink.writes.length, 2, 'the opening and one more')
    assert.deepEqual(sink.indexes, upTo(20))
  }
})

test('a group that is far behind writes no more at once than four times what may wait, and one batch', async () => {
  const highWaterMark = 1000
  const { level, publish, settle } = setup({ highWaterMark })
  const members = await level(3)
  const size = 300
  for (let n = 0; n < 90; n++) await publish('x'.repeat(size))
  await settle()
  for (const { sink } of members) {
    assert.deepEqual(sink.indexes, upTo(90))
    const largest = Math.max(...sink.writes.map(({ length }) => length))
    assert.ok(largest > 3 * highWaterMark && largest < 4 * highWaterMark + size + 200, `${largest} bytes in one write`)
  }
})

test('with a round interval, what is published until the next round leaves in one write, and what follows a pause at once', async () => {
  const { clock, levelOne, publish, settle } = setup({ roundInterval: 10 })
  const { sink } = await levelOne()
  clock.advance(10)
  const rounds = async (writes: number) => {
    await settle()
    assert.equal(sink.writes.length - before, writes)
  }
  const before = sink.writes.length
  await publish()
  await rounds(1)
  for (let n = 0; n < 9; n++) {
    clock.advance(1)
    await publish()
    await rounds(1)
  }
  clock.advance(1)
  await rounds(2)
  clock.advance(10)
  await publish()
  await rounds(3)
  assert.deepEqual(sink.indexes, upTo(11))
  assert.equal(clock.timers, 1, 'the one that looks at the streams')
})

test('a round that is cut by its deadline goes on at once', async () => {
  const { clock, level, publish, settle } = setup({ roundInterval: 10_000 })
  const members = await level(100)
  clock.advance(10_000)
  await publish()
  clock.perLook = 9
  await turn()
  clock.runDeferred()
  assert.ok(members.some(({ sink }) => sink.indexes.length === 0) && clock.deferred > 0, 'it was cut')
  await settle()
  for (const { sink } of members) assert.deepEqual(sink.indexes, [1])
})

test('streams that are behind, and last words, wait for no round', async () => {
  const { broker, levelOne, open, publish, publishMany, settle } = setup({ roundInterval: 10_000 })
  const member = await levelOne()
  await publishMany(50)
  await settle()
  await publish()
  const { sink } = open({ from: 'earliest' })
  await settle()
  assert.deepEqual(sink.indexes, upTo(51))
  assert.deepEqual(member.sink.indexes, upTo(50), 'a member waits')
  await broker.close()
  await settle()
  assert.equal(sink.state, 'ended')
  assert.equal(member.sink.state, 'ended')
  const { closed } = JSON.parse(member.sink.lines.at(-1) as string)
  assert.match(closed.cursor, /:50$/, 'it can resume before what it was not sent')
})

test('streams that are behind take turns: many that are ready do not hold up timers', async () => {
  const { clock, open, publish, settle } = setup()
  await publish('x')
  const readers = Array.from({ length: 100 }, () => open({ from: 'earliest' }))
  clock.perLook = 1
  const served = () => readers.filter(({ sink }) => sink.lines.length === 2).length
  await turn()
  clock.runDeferred()
  assert.ok(served() > 0 && served() < 100, `${served()} served in the first turn`)
  await settle()
  assert.equal(served(), 100)
})

test('a group that is cut by its deadline goes on where it stopped, and who waited gets all that is new in one write', async () => {
  const { calls, clock, level, publish, settle } = setup()
  const members = await level(1000)
  clock.perLook = 1
  const served = (lines: number) => members.filter(({ sink }) => sink.lines.length >= lines).length
  await publish(1)
  await turn()
  clock.runDeferred()
  const first = served(2)
  assert.ok(first > 0 && first < 1000, `${first} served in the first turn`)
  await publish(2)
  await turn()
  clock.runDeferred()
  assert.ok(served(2) > first, 'it went on')
  assert.equal(members.filter(({ sink }) => sink.lines.length === 3).length, served(3))
  await publish(3)
  await settle()
  let inOneWrite = 0
  for (const { sink } of members) {
    assert.deepEqual(sink.indexes, [1, 2, 3])
    if (sink.writes.length === 2) inOneWrite++
  }
  assert.ok(inOneWrite > 0, 'some got three batches in one write')
  assert.equal(calls.batch, 3)
  for (const { stream } of members) assert.equal(stream.index, 3)
})

test('a member that leaves while a cut group goes round does not make another miss its turn', async () => {
  for (const leaving of [0, 1, 63, 100]) {
    const { clock, level, publish, settle } = setup()
    const members = await level(400)
    clock.perLook = 1
    await publish(1)
    await turn()
    clock.runDeferred()
    const served = members.filter(({ sink }) => sink.lines.length === 2).length
    assert.ok(served > leaving && served < 400, `${served} served before the cut`)
    // Those before the cut come last in the next round; there one leaves, and its place goes to one that was served.
    clock.perLook = 0
    const leaver = members[leaving] as (typeof members)[number]
    leaver.sink.takes = false
    await publish(2)
    await settle()
    assert.equal(leaver.stream.group, undefined, 'it left')
    await publish(3)
    await settle()
    for (const member of members) if (member !== leaver) assert.deepEqual(member.sink.indexes, [1, 2, 3])
    leaver.sink.takes = true
    leaver.sink.drain()
    leaver.stream.drained()
    await settle()
    assert.deepEqual(leaver.sink.indexes, [1, 2, 3])
  }
})

test('who leaves a cut group before its turn resumes exactly where it stands', async () => {
  const { clock, level, publish, settle, open } = setup()
  const members = await level(1000)
  clock.perLook = 1
  await publish(1)
  await turn()
  clock.runDeferred()
  const waiting = members.filter(({ sink }) => sink.lines.length === 1)
  const served = members.filter(({ sink }) => sink.lines.length === 2)
  assert.ok(waiting.length > 0 && served.length > 0)
  for (const [at, member] of [...waiting.slice(0, 5), ...served.slice(0, 5)].entries()) {
    const { cursor } = member.subscription
    member.stream.gone()
    clock.perLook = 0
    const again = open({ from: cursor })
    clock.perLook = 1
    await settle()
    await publish('more')
    await settle()
    const all = [...member.sink.indexes, ...again.sink.indexes]
    assert.deepEqual(all, upTo(all.length), `member ${at}`)
    assert.equal(all.length, at + 2)
  }
})

test('revoked in the middle of a cut round: the last word tells an exact cursor, others are not affected', async () => {
  const { broker, clock, level, publish, settle, open } = setup()
  const good = await level(300, { token: 'good' })
  const bad = await level(300, { token: 'bad' })
  clock.perLook = 1
  await publish(1)
  await turn()
  clock.runDeferred()
  clock.perLook = 0
  const revokedAt = broker.status.newestIndex
  broker.revoke('bad')
  await publish(2)
  await settle()
  let unsent = 0
  for (const { sink } of bad) {
    assert.ok(sink.indexes.every((index) => index <= revokedAt))
    const { closed } = JSON.parse(sink.lines.at(-1) as string)
    assert.equal(closed.code, 'REVOKED')
    if (sink.indexes.length === 0) unsent++
    assert.equal(closed.cursor, `${broker.status.epoch}:${sink.indexes.at(-1) ?? 0}`)
    assert.equal(sink.state, 'ended')
  }
  assert.ok(unsent > 0, 'some were revoked before their turn')
  for (const { sink } of good) assert.deepEqual(sink.indexes, [1, 2])
  const last = JSON.parse(bad.at(-1)?.sink.lines.at(-1) as string).closed.cursor
  const again = open({ from: last })
  await settle()
  assert.deepEqual(again.sink.indexes, [1, 2])
})

test('a member under recheck gets what was published before, and the rest once access is confirmed', async () => {
  const answers: { resolve: (value: Rights) => void; reject: (reason: unknown) => void }[] = []
  let asking = false
  const { broker, level, publish, settle } = setup({
    authorize: ({ token }) => {
      if (!asking || token !== 'doubted') return everything
      const answer = deferred<Rights>()
      answers.push(answer)
      return answer.promise
    },
  })
  const doubted = await level(3, { token: 'doubted' })
  const others = await level(3, { token: 'other' })
  asking = true
  await publish(1)
  broker.recheck('doubted')
  await publish(2)
  await publish(3)
  await settle()
  for (const { sink, stream } of doubted) {
    assert.deepEqual(sink.indexes, [1], 'nothing above the index of the doubt')
    assert.equal(stream.group, undefined)
  }
  for (const { sink } of others) assert.deepEqual(sink.indexes, [1, 2, 3])
  answers[0]?.resolve(everything)
  answers[1]?.reject(new Error('no longer'))
  await settle()
  const [confirmed, refused, unanswered] = doubted
  assert.deepEqual(confirmed?.sink.indexes, [1, 2, 3])
  assert.ok(confirmed?.stream.group, 'back in the group')
  assert.deepEqual(refused?.sink.indexes, [1])
  assert.match(refused?.sink.lines.at(-1) as string, /"closed":\{"code":"REVOKED"/)
  assert.deepEqual(unanswered?.sink.indexes, [1])
})

test('a member whose token has expired gets nothing from that moment, not even what waits for its turn', async () => {
  const expiresAt = 1_700_000_000_000 + 60_000
  const { clock, level, publish, settle } = setup({
    authorize: ({ token }) => (token === 'short' ? { ...everything, expiresAt } : everything),
  })
  const short = await level(3, { token: 'short' })
  const others = await level(3, { token: 'long' })
  await publish(1)
  await settle()
  await publish(2)
  // The clock that expiry is measured by moves on without any timer: only the look before each write can see it.
  clock.wall = expiresAt
  await settle()
  for (const { sink } of short) {
    assert.deepEqual(sink.indexes, [1])
    assert.match(sink.lines.at(-1) as string, /"closed":\{"code":"EXPIRED".*:1"/)
    assert.equal(sink.state, 'ended')
  }
  for (const { sink } of others) assert.deepEqual(sink.indexes, [1, 2])
})

test('an idle member whose token expires is ended within a second', async () => {
  const expiresAt = 1_700_000_000_000 + 60_000
  const { clock, level, settle } = setup({ authorize: () => ({ ...everything, expiresAt }) })
  const [one] = await level(1)
  clock.advance(61_000)
  await settle()
  assert.match(one?.sink.lines.at(-1) as string, /"closed":\{"code":"EXPIRED"/)
})

test('a whole group that is late is told one and the same gap, and goes on after it', async () => {
  const { broker, calls, level, publish, publishMany, settle } = setup({ capacity: 10 })
  const members = await level(100)
  await publish('seen')
  await settle()
  await publishMany(50)
  await settle()
  const { epoch, oldestIndex } = broker.status
  for (const { sink, stream } of members) {
    const gap = `{"gap":{"after":1,"before":${oldestIndex},"reason":"lag","cursor":"${epoch}:${(oldestIndex ?? 0) - 1}"}}`
    assert.equal(sink.lines[2], gap)
    assert.deepEqual(sink.indexes, [1, ...upTo(51, oldestIndex)])
    assert.ok(stream.group)
  }
  assert.equal(calls.batch, members[0]?.sink.indexes.length, 'each was encoded once')
})

test('a whole group that is flooded in one go is told one gap', async () => {
  const { broker, level, settle } = setup({ capacity: 10 })
  const members = await level(5)
  const many = Array.from({ length: 50 }, (_, n) => ({ events: [{ topic: 'T', type: 't', payload: n }] }))
  await broker.publishAll(many)
  await settle()
  for (const { sink } of members) {
    const { oldestIndex } = broker.status
    assert.equal(sink.lines.filter((line) => line.startsWith('{"gap":')).length, 1)
    assert.ok(sink.lines[1]?.startsWith(`{"gap":{"after":0,"before":${oldestIndex},`))
    assert.deepEqual(sink.indexes, upTo(50, oldestIndex))
  }
})

test('streams with different filters or formats get their own, and those with the same one share a group', async () => {
  const { leaders, level, publish, settle } = setup()
  const a = await level(3, { topics: { A: ['*'] } })
  const b = await level(3, { topics: { B: ['*'] } })
  const all = await level(3)
  const sse = await level(3, { encoder: new Encoder(sseFormat(1000)) })
  assert.equal(leaders.length, 4)
  for (const same of [a, b, all, sse]) assert.equal(new Set(same.map(({ stream }) => stream.group)).size, 1)
  await publish(1, 'A')
  await publish(2, 'B')
  await publish(3, 'A')
  await settle()
  for (const { sink } of a) assert.deepEqual(sink.indexes, [1, 3])
  for (const { sink } of b) assert.deepEqual(sink.indexes, [2])
  for (const { sink } of all) assert.deepEqual(sink.indexes, [1, 2, 3])
  for (const { sink } of sse) {
    assert.equal(
      Buffer.concat(sink.writes)
        .toString()
        .match(/^data: /gm)?.length,
      3,
    )
  }
})

test('each gets those events of a batch that it wants', async () => {
  const { broker, level, settle } = setup()
  const a = await level(3, { topics: { A: ['*'] } })
  const all = await level(3)
  await broker.publish([
    { topic: 'A', type: 't', payload: 1 },
    { topic: 'B', type: 't', payload: 2 },
  ])
  await settle()
  for (const { sink } of a) assert.equal(JSON.parse(sink.lines.at(-1) as string).events.length, 1)
  for (const { sink } of all) assert.equal(JSON.parse(sink.lines.at(-1) as string).events.length, 2)
})

test('a group ends with its last member, and its leader costs a publish nothing any more', async () => {
  const { broker, clock, dismissed, fanOut, leaders, level, publish, settle } = setup()
  const members = await level(10)
  const [leader] = leaders
  assert.ok(leader)
  let told = 0
  const notify = leader.notify.bind(leader)
  leader.notify = (...of) => {
    told++
    notify(...of)
  }
  await publish(1)
  await settle()
  assert.equal(told, 1)
  assert.equal(broker.status.subscriptions, 10, 'a leader is no subscription of anybody')
  for (const { stream } of members.slice(1)) stream.gone()
  assert.deepEqual(dismissed, [])
  members[0]?.stream.gone()
  assert.deepEqual(dismissed, [leader])
  await publish(2)
  await settle()
  assert.equal(told, 1)
  assert.deepEqual([broker.status.subscriptions, fanOut.size, clock.timers, clock.deferred], [0, 0, 0, 0])
  await level(2)
  assert.equal(leaders.length, 2, 'the next ones have a group of their own')
})

test('while members are in a group, a publish tells the leader and nobody else', async () => {
  const { level, publish, settle } = setup()
  const members = await level(10)
  let told = 0
  for (const { subscription } of members) {
    subscription.notify = () => {
      told++
    }
  }
  await publish(1)
  await settle()
  assert.equal(told, 0)
  for (const { sink } of members) assert.deepEqual(sink.indexes, [1])
})

/** A sink that allocates nothing. */
class CountingSink implements Sink {
  writes = 0
  write(_piece: Piece): boolean {
    this.writes++
    return true
  }
  isWaiting(): boolean {
    return false
  }
  taken(): number {
    return 0
  }
  end(): void {}
  abort(): void {}
}

test('an event costs the same promises, timers and other asynchronous resources with 10 sockets and with 2,000', async () => {
  const costs = async (count: number) => {
    const { level, publish, clock } = setup()
    const sink = new CountingSink()
    await level(count, { sink })
    await publish('warm')
    await turn()
    clock.runDeferred()
    const resources: Record<string, number> = {}
    const hook = createHook({
      init: (_id, type) => {
        resources[type] = (resources[type] ?? 0) + 1
      },
    }).enable()
    const published = publish('x')
    await published
    await turn()
    clock.runDeferred()
    hook.disable()
    assert.equal(sink.writes, count * 3, 'the opening and two batches')
    return { resources, timers: clock.timers, deferred: clock.deferred }
  }
  const few = await costs(10)
  assert.ok((few.resources.PROMISE ?? 0) > 0, 'the hook sees promises')
  assert.deepEqual(await costs(2000), few)
})

test('a write to a socket allocates less than the smallest closure', async () => {
  const { level, publish, clock } = setup()
  const count = 20_000
  const sink = new CountingSink()
  await level(count, { sink })
  const grown: number[] = []
  for (let n = 0; n < 15; n++) {
    await publish(n)
    await turn()
    globalThis.gc?.()
    const before = process.memoryUsage().heapUsed
    clock.runDeferred()
    grown.push(process.memoryUsage().heapUsed - before)
  }
  assert.equal(sink.writes, count * 16)
  const perWrite = Math.min(...grown.map((bytes) => (bytes > 0 ? bytes : Number.POSITIVE_INFINITY))) / count
  assert.ok(perWrite < 16, `${perWrite.toFixed(1)} bytes per write`)
})

test('the one timer runs only while a stream is open', () => {
  const { clock, fanOut, open } = setup()
  assert.equal(clock.timers, 0)
  const one = open()
  const two = open()
  assert.deepEqual([clock.timers, fanOut.size], [1, 2])
  one.stream.gone()
  assert.deepEqual([clock.timers, fanOut.size], [1, 1])
  two.stream.gone()
  two.stream.gone()
  assert.deepEqual([clock.timers, fanOut.size], [0, 0])
  clock.advance(100_000)
  open()
  assert.equal(clock.timers, 1)
})

test('a peer that goes away in the middle of anything leaves nothing behind', async () => {
  const { broker, clock, dismissed, fanOut, leaders, open, publish, settle } = setup()
  for (const moment of ['opened', 'level', 'queued', 'full', 'ended', 'last word written']) {
    const { sink, stream, subscription } = open()
    if (moment !== 'opened') await settle()
    if (moment === 'queued') await publish()
    if (moment === 'full') {
      sink.takes = false
      await publish()
      await settle()
    }
    if (moment.startsWith('ended') || moment.startsWith('last')) subscription.fail(new Error('the end'))
    if (moment.startsWith('last')) await settle()
    stream.gone()
    const { length } = sink.writes
    await publish()
    await settle()
    stream.drained()
    clock.advance(60_000)
    await settle()
    assert.equal(sink.writes.length, length, `nothing is written after the end (${moment})`)
    assert.deepEqual([fanOut.size, broker.status.subscriptions, clock.timers, clock.deferred], [0, 0, 0, 0], moment)
    assert.deepEqual(dismissed, leaders, moment)
  }
})

test('a peer that takes nothing is cut off after the stall time-out, one that has nothing to take is not', async () => {
  const { broker, clock, levelOne, publish, fanOut, settle } = setup({ heartbeat: 100_000 })
  const { sink, subscription } = await levelOne()
  clock.advance(stallTimeout * 3)
  await settle()
  assert.equal(sink.state, 'open')
  sink.takes = false
  await publish()
  await settle()
  clock.advance(stallTimeout * 0.9)
  assert.equal(sink.state, 'open')
  clock.advance(stallTimeout * 0.3)
  assert.equal(sink.state, 'aborted')
  await assert.rejects(subscription.next(), { code: 'STALLED', message: 'The connection took no bytes for 30000 ms.' })
  assert.deepEqual([fanOut.size, broker.status.subscriptions, clock.timers], [0, 0, 0])
})

test('a peer that takes a byte now and then is not cut off', async () => {
  const { clock, levelOne, publish, settle } = setup()
  const { sink } = await levelOne()
  sink.takes = false
  await publish('x'.repeat(1000))
  await settle()
  for (let bytes = 0; bytes < 20; bytes++) {
    clock.advance(stallTimeout * 0.8)
    sink.take(1)
  }
  assert.equal(sink.state, 'open')
  clock.advance(stallTimeout * 1.2)
  assert.equal(sink.state, 'aborted')
})

test('a stream that has ended stays until its peer has taken the last word, or is cut off', async () => {
  const { clock, levelOne, publish, fanOut, broker, settle } = setup()
  const { sink, subscription } = await levelOne()
  sink.takes = false
  await publish()
  await settle()
  subscription.fail(new Error('the end'))
  await settle()
  assert.equal(broker.status.subscriptions, 0)
  clock.advance(stallTimeout * 1.2)
  await settle()
  assert.deepEqual([sink.state, fanOut.size, clock.timers], ['aborted', 0, 0])
})

test('the last word of a stream follows what was taken before it, and resumes after it; then the sink ends', async () => {
  const { broker, level, publish, fanOut, settle } = setup()
  const members = await level(3)
  await publish()
  await settle()
  await broker.close()
  await settle()
  for (const { sink, stream } of members) {
    assert.equal(sink.state, 'ended')
    const [opening, batch, closed, ...more] = sink.lines
    assert.match(opening as string, /^\{"open":/)
    assert.match(batch as string, /^\{"index":1,/)
    assert.match(closed as string, /^\{"closed":\{"code":"SHUTDOWN",.*:1"\}\}$/)
    assert.deepEqual(more, [])
    stream.gone()
  }
  assert.equal(fanOut.size, 0)
})

test('a stream at its greatest age is ended with RENEW, and its cursor resumes exactly', async () => {
  const { broker, clock, level, open, publish, publishMany, settle } = setup({ heartbeat: 100_000, maxAge: 10_000 })
  const [one] = await level(1)
  await publish(1)
  await settle()
  clock.advance(9_900)
  await settle()
  assert.equal(one?.sink.state, 'open')
  await publish(2)
  clock.advance(3_500)
  await publish(3)
  await settle()
  assert.equal(one?.sink.state, 'ended')
  const { closed } = JSON.parse(one?.sink.lines.at(-1) as string)
  assert.equal(closed.code, 'RENEW')
  assert.equal(closed.retry, 1000)
  const got = one?.sink.indexes ?? []
  assert.equal(closed.cursor, `${broker.status.epoch}:${got.at(-1)}`)
  const again = open({ from: closed.cursor })
  await publishMany(2)
  await settle()
  assert.deepEqual([...got, ...again.sink.indexes], upTo(5))
})

test('a stream whose peer always has something to take still, but takes it, is ended at its greatest age, too', async () => {
  const { clock, levelOne, publish, settle } = setup({ maxAge: 100_000 })
  const { sink, subscription } = await levelOne()
  sink.takes = false
  await publish('x'.repeat(10_000))
  await settle()
  for (let n = 0; n < 300; n++) {
    clock.advance(1000)
    sink.take(1)
    await settle()
  }
  assert.ok(sink.isWaiting())
  assert.ok(subscription.closed, 'the subscription has ended after three times its greatest age')
})

test('a failure that is no SpillwayError ends the stream without telling what it was', async () => {
  const { open, publish, settle } = setup()
  await publish()
  const { sink } = open({
    from: 'earliest',
    filter: () => {
      throw new Error('a secret of the operator')
    },
  })
  await settle()
  assert.equal(sink.state, 'ended')
  assert.match(sink.lines.at(-1) as string, /"code":"INTERNAL","message":"The stream failed\."/)
  assert.ok(!sink.lines.join().includes('secret'))
})

test('a failure of a leader ends its group’s streams, and nothing else', async () => {
  const { level, leaders, publish, settle } = setup()
  const members = await level(3, { topics: { A: ['*'] } })
  const others = await level(3)
  // As when its log cannot be read.
  leaders[0]?.fail(new Error('a secret of the operator'))
  await publish(1, 'A')
  await settle()
  for (const { sink } of others) assert.deepEqual(sink.indexes, [1])
  for (const { sink } of members) {
    assert.ok(sink.indexes.length === 1 || sink.state === 'ended', 'it goes on by itself, or ends')
    assert.ok(!sink.lines.join().includes('secret'))
  }
})

test('retry is what the handler was told, in the opening and at the end', () => {
  const { open } = sseFormat(2500)
  assert.equal(open({ cursor: 'e:1', index: 1, oldest: 1, newest: 1 } as never), 'retry: 2500\nid: e:1\n\n')
})
