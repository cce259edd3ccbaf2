import assert from 'node:assert/strict'
import { test } from 'node:test'
import { HostSampler } from '../../src/host/sampler.ts'
import type { HostSystem } from '../../src/host/system.ts'

/** A machine whose files and counters the test sets. */
class FakeHost implements HostSystem {
  readonly name = 'machine'
  time = 0
  busy = 0
  total = 0
  files: Record<string, string> = {}

  now(): number {
    return this.time
  }

  cpus(): ReturnType<HostSystem['cpus']> {
    return { count: 2, times: { busy: this.busy, total: this.total } }
  }

  load(): number[] {
    return [0.123, 1, 2]
  }

  memory(): ReturnType<HostSystem['memory']> {
    return { total: 1000, available: 400 }
  }

  async list(): Promise<string[]> {
    const names = Object.keys(this.files).map((file) => file.split('/')[0] ?? '')
    if (names.length === 0) throw new Error('there is no /proc')
    return names
  }

  async read(file: string): Promise<string> {
    const text = this.files[file]
    if (text === undefined) throw new Error(`no ${file}`)
    return text
  }
}

const disk = (reads: number, sectors: number) => `8 0 sda ${reads} 0 ${sectors} 0 4 0 8 0 0 0 0\n`
const network = (rx: number, tx: number) => `eth0: ${rx} 0 0 0 0 0 0 0 ${tx} 0 0 0 0 0 0 0\n`

test('the first sample has no rates and tells of no process', async () => {
  const host = new FakeHost()
  host.files = { diskstats: disk(1, 1), 'net/dev': network(1, 1), '7/stat': '7 (seven) S 1' }
  const payload = {
    load: [0.12, 1, 2],
    memory: { total: 1000, available: 400, used: 600 },
    cpu: { count: 2, use: null },
  }
  assert.deepEqual(await new HostSampler(host).sample(), [
    { topic: 'Host', type: 'HostSampled', key: 'machine', payload },
  ])
})

test('counters become rates of the time that passed', async () => {
  const host = new FakeHost()
  host.files = { diskstats: disk(10, 10), 'net/dev': network(1000, 5000) }
  const sampler = new HostSampler(host)
  await sampler.sample()
  Object.assign(host, { time: 2000, busy: 500, total: 2000 })
  host.files = { diskstats: disk(15, 14), 'net/dev': network(1500, 4000) }
  const [sampled, ...others] = await sampler.sample()
  assert.equal((sampled?.payload as { cpu: { use: number } } | undefined)?.cpu.use, 0.25)
  assert.deepEqual(
    others.map(({ topic, key, payload }) => ({ topic, key, payload })),
    [
      {
        topic: 'Disk',
        key: 'sda',
        payload: { readsPerSecond: 2.5, writesPerSecond: 0, readBytesPerSecond: 1024, writtenBytesPerSecond: 0 },
      },
      // What was sent fell: the counter began anew.
      { topic: 'Network', key: 'eth0', payload: { rxBytesPerSecond: 250, txBytesPerSecond: 0 } },
    ],
  )
})

test('processes that start and end are told of once', async () => {
  const host = new FakeHost()
  host.files = { '1/stat': '1 (init) S 0', '2/stat': '2 (old) S 1' }
  const sampler = new HostSampler(host)
  await sampler.sample()
  host.files = { '1/stat': '1 (init) S 0', '3/stat': '3 (new) S 1', '4/gone': '' }
  const happened = async () =>
    (await sampler.sample()).slice(1).map(({ type, key, filterKeys }) => ({ type, key, filterKeys }))
  assert.deepEqual(await happened(), [
    { type: 'ProcessEnded', key: '2', filterKeys: ['old'] },
    { type: 'ProcessStarted', key: '3', filterKeys: ['new'] },
  ])
  assert.deepEqual(await happened(), [])
})

test('what cannot be read is left out, and counts again once it can be', async () => {
  const host = new FakeHost()
  const sampler = new HostSampler(host)
  const topics = async () => {
    host.time += 1000
    return (await sampler.sample()).map(({ topic }) => topic)
  }
  assert.deepEqual(await topics(), ['Host'])
  host.files = { diskstats: disk(1, 1), 'net/dev': 'nonsense', '5/stat': 'nonsense' }
  assert.deepEqual(await topics(), ['Host'])
  assert.deepEqual(await topics(), ['Host', 'Disk'])
  host.files = { 'net/dev': network(1, 1) }
  assert.deepEqual(await topics(), ['Host'])
})
