import assert from 'node:assert/strict'
import { test } from 'node:test'
import { publishIndexes, serve } from '../support/http.ts'
import { injections } from '../support/injections.ts'
import { findProgram, start, works } from '../support/programs.ts'

const candidates = [findProgram('python3'), '/usr/bin/python3'].filter((program) => program !== undefined)
const program = candidates.find((candidate) => works(candidate, '-c', 'import requests')) ?? ''
const missing = candidates.some((candidate) => works(candidate, '--version')) ? 'python3 has no requests' : 'no python3'
const skip = program === '' ? missing : false

// As python-nomad reads: it dies of an empty line and of one that is not JSON.
const reader = `
import json, sys, requests
response = requests.get(sys.argv[1], stream=True, timeout=30)
response.raise_for_status()
for line in response.iter_lines():
    message = json.loads(line)
    print(json.dumps(message, sort_keys=True), flush=True)
`

test('a reader with requests.iter_lines gets every event as it comes, over heartbeats, a gap and the end', {
  skip,
}, async (t) => {
  const site = await serve(t, { brokerOptions: { capacity: 5 }, handler: { heartbeat: 100 } })
  await publishIndexes(site.broker, 1, 10)
  const running = start(t, program, ['-c', reader, `${site.url}/v1/event/stream?index=2`])
  const next = async () =>
    JSON.parse((await running.nextLine()) ?? assert.fail(running.complaints())) as Record<string, unknown>
  assert.deepEqual(await next(), {})
  const oldest = site.broker.status.oldestIndex as number
  assert.deepEqual(await next(), { Gap: { After: 1, Before: oldest } })
  for (let index = oldest; index <= 10; index++) assert.equal((await next()).Index, index)
  assert.deepEqual(await next(), {}, 'a heartbeat')
  await publishIndexes(site.broker, 11, 11)
  let message = await next()
  while (Object.keys(message).length === 0) message = await next()
  assert.equal(message.Index, 11)
  await site.broker.close()
  while (Object.keys(message).length === 0 || message.Index) message = await next()
  assert.equal((message.Error as { Code: string }).Code, 'SHUTDOWN')
  assert.equal(await running.nextLine(), undefined)
  assert.equal(await running.exit, 0, running.complaints())
})

test('a reader with requests.iter_lines gets one line for one event, whatever the event holds', { skip }, async (t) => {
  const site = await serve(t)
  for (const { event } of injections) await site.broker.publish(event)
  const running = start(t, program, ['-c', reader, `${site.url}/v1/event/stream?namespace=*`])
  assert.equal(await running.nextLine(), '{}')
  for (const [position, { payload }] of injections.entries()) {
    const line = (await running.nextLine()) ?? assert.fail(running.complaints())
    const { Index, Events } = JSON.parse(line) as { Index: number; Events: { Payload: unknown }[] }
    assert.deepEqual([Index, Events.map(({ Payload }) => Payload)], [position + 1, [payload]])
  }
})
