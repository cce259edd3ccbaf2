import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type Face, faces, follow, followRequest } from '../support/follower.ts'
import { ask, post, until } from '../support/http.ts'
import { start } from '../support/programs.ts'

const program = fileURLToPath(new URL('../../../../server/dist/bin.js', import.meta.url))
const readers = 500

for (let round = 1; round <= 10; round++) {
  test(`N17: told to end under load, the server gives 500 readers a last word with a cursor and exits (${round})`, {
    skip: existsSync(program) ? false : 'the server was not built',
  }, async (t) => {
    const { child, nextLine, complaints, exit } = start(t, process.execPath, [
      program,
      'serve',
      '--memory',
      '--port',
      '0',
    ])
    let port = 0
    for (let line = await nextLine(); line !== undefined && port === 0; line = port ? line : await nextLine()) {
      port = Number(/127\.0\.0\.1:(\d+)|localhost:(\d+)/.exec(line)?.slice(1).find(Boolean) ?? 0)
    }
    assert.ok(port > 0, complaints())
    const clients = Array.from({ length: readers }, (_, n) => {
      const face = faces[n % 3] as Face
      return follow(port, face, followRequest(face, { from: 'earliest' }))
    })
    t.after(() => {
      for (const { socket } of clients) socket.destroy()
    })
    await until(async () => (await ask({ port }, '/v1/status')).json.streams === readers, 'all readers are there')
    const acked: number[] = []
    const writers = Array.from({ length: 4 }, async () => {
      for (;;) {
        try {
          const { status, json } = await post(
            { port },
            { events: [{ topic: 'T', type: 't', payload: 'x'.repeat(200) }] },
          )
          if (status !== 200) return
          acked.push(json.index as number)
        } catch {
          return
        }
      }
    })
    await until(() => acked.length > 200 && clients.every(({ follower }) => follower.index > 100), 'there is load')
    const toldAt = performance.now()
    child.kill('SIGTERM')
    assert.equal(await exit, 0, complaints())
    const took = performance.now() - toldAt
    console.log(`exited after ${took.toFixed(0)} ms; ${acked.length} acknowledged`)
    assert.ok(took < 10_000)
    await Promise.all(writers)
    await until(() => clients.every(({ isClosed }) => isClosed), 'all connections are closed')
    const lastAck = Math.max(...acked)
    for (const { follower } of clients) {
      assert.equal(follower.closed?.code, 'SHUTDOWN', `${follower.face} after ${follower.index}`)
      assert.ok(follower.isComplete, 'the body ended cleanly')
      let last = 0
      for (const { index } of follower.batches) assert.equal(index, ++last)
      assert.deepEqual(follower.gaps, [])
      if (follower.face === 'Nomad') continue
      assert.equal(follower.cursor, follower.closed?.cursor)
      assert.match(follower.closed?.cursor ?? '', new RegExp(`:${last}$`), 'the cursor is that of the last batch')
    }
    const furthest = Math.max(...clients.map(({ follower }) => follower.index))
    assert.ok(furthest <= lastAck + 4, 'nobody saw what was not published')
  })
}
