import assert from 'node:assert/strict'
import { EventEmitter, once } from 'node:events'
import { test } from 'node:test'
import type { EventInput } from 'spillway'
import { type HostSystem, thisHost } from '../src/host/system.ts'
import { startHostSource } from '../src/host-source.ts'
import { silentLog } from '../src/log.ts'
import { serve } from './support/program.ts'

interface HostEvent {
  topic: string
  payload: { memory: { total: number } }
}

test('a server with --source host streams the counters of this machine, one batch each second', async (t) => {
  const { url } = await serve(t, '--source', 'host')
  const response = await fetch(`${url}/v1/events?from=earliest`, { headers: { accept: 'application/x-ndjson' } })
  const batches: { index: number; events: [HostEvent, ...{ topic: string }[]] }[] = []
  let text = ''
  for await (const bytes of response.body ?? []) {
    text += Buffer.from(bytes).toString()
    const lines = text.split('\n')
    text = lines.pop() ?? ''
    for (const line of lines) if (line.startsWith('{"index"')) batches.push(JSON.parse(line))
    if (batches.length >= 3) break
  }
  for (const [i, { index, events }] of batches.entries()) {
    assert.equal(index, i + 1)
    assert.equal(events[0].topic, 'Host')
    assert.ok(events[0].payload.memory.total > 0)
  }
  if (process.platform === 'linux') {
    const topics = new Set(batches.flatMap(({ events }) => events.map(({ topic }) => topic)))
    assert.ok(topics.has('Network'), [...topics].join())
  }
})

test('where there is no /proc, only the host itself is told of', async () => {
  const published = new EventEmitter()
  const source = startHostSource({
    publish: async (events) => published.emit('batch', events),
    log: silentLog,
    interval: 1,
    system: thisHost('/nonexistent'),
  })
  await once(published, 'batch')
  const [events] = (await once(published, 'batch')) as [EventInput[]]
  await source.stop()
  assert.deepEqual(
    events.map(({ topic }) => topic),
    ['Host'],
  )
})

test('samples never overlap, and none is published after the stop', async () => {
  const calls = new EventEmitter()
  let atOnce = 0
  let published = 0
  let letGo = () => {}
  const slow: HostSystem = {
    ...thisHost('/nonexistent'),
    async list() {
      atOnce++
      calls.emit('sampling')
      await new Promise<void>((resolve) => {
        letGo = resolve
      })
      atOnce--
      return []
    },
  }
  const source = startHostSource({
    publish: async () => {
      published++
    },
    log: silentLog,
    interval: 1,
    system: slow,
  })
  for (let i = 0; i < 3; i++) {
    if (i > 0 || atOnce === 0) await once(calls, 'sampling')
    assert.equal(atOnce, 1)
    if (i < 2) letGo()
  }
  const stopped = source.stop()
  letGo()
  await stopped
  assert.equal(published, 2)
})

test('a batch that cannot be published is logged, and the next is tried', async () => {
  const log = new EventEmitter()
  const source = startHostSource({
    publish: async () => {
      throw new Error('full')
    },
    log: { ...silentLog, error: (message, fields) => log.emit('logged', message, fields?.error) },
    interval: 1,
    system: thisHost('/nonexistent'),
  })
  for (let i = 0; i < 2; i++) {
    const [message, error] = await once(log, 'logged')
    assert.match(message, /could not be published/)
    assert.match(String(error), /full/)
  }
  await source.stop()
})
