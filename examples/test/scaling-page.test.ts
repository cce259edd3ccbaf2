// The program of docs/scaling.md runs here against a real nats-server, so that it cannot go stale.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { natsPrograms, startNats } from '@spillway/engines'
import { runProgram, snippetsOf } from './support.ts'

const skip = natsPrograms().length > 0 ? false : 'no nats-server on this machine'

test('several servers: the program does what the page says', { skip }, async (t) => {
  const server = await startNats()
  t.after(() => server.remove())
  const page = snippetsOf('docs/scaling.md')
  const [program = '', ...more] = page('ts')
  const [printed] = page('text').slice(-1)
  assert.equal(await runProgram(program.replace('nats://127.0.0.1:4222', server.url)), printed)
  assert.deepEqual(more, [])
})
