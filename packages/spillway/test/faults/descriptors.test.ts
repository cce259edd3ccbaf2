import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type Client, type Face, faces, follow, followRequest } from '../support/follower.ts'
import { until } from '../support/http.ts'
import { start, works } from '../support/programs.ts'
import { posting, RawClient } from '../support/raw.ts'

const limit = 256
const serving = fileURLToPath(new URL('../support/serving.js', import.meta.url))
const canLimit = works('sh', '-c', `ulimit -n ${limit}`) && process.platform === 'linux'

test('N9: a server without free descriptors goes on serving those it has, and accepts again when some leave', {
  skip: canLimit ? false : 'needs Linux and ulimit',
}, async (t) => {
  const { child, nextLine, complaints } = start(t, 'sh', [
    '-c',
    `ulimit -n ${limit}; exec "$0" "$1" '{}'`,
    process.execPath,
    serving,
  ])
  const port = Number(await nextLine())
  const descriptors = () => readdirSync(`/proc/${child.pid}/fd`).length
  const publisher = await RawClient.open(t, port)
  let published = 0
  const publish = async (): Promise<void> => {
    const body = '{"events":[{"topic":"T","type":"t"}]}'
    publisher.send(posting(['Content-Type: application/json', `Content-Length: ${body.length}`], body))
    published++
    await until(() => publisher.text.includes(`"index":${published},`), `answer ${published}; ${complaints()}`)
  }
  await publish()
  for (let round = 1; round <= 5; round++) {
    const clients: Client[] = Array.from({ length: 400 }, (_, n) => {
      const face = faces[n % 3] as Face
      return follow(port, face, followRequest(face))
    })
    t.after(() => {
      for (const { socket } of clients) socket.destroy()
    })
    const served = () => clients.filter(({ follower, isClosed }) => follower.status === 200 && !isClosed)
    await until(
      () => descriptors() >= limit - 1,
      () => `all ${limit} descriptors are used, now ${descriptors()}`,
    )
    await until(
      () => clients.filter(({ isClosed }) => isClosed).length + served().length === 400 || served().length > 200,
      'many are served',
    )
    assert.ok(served().length < 300, `${served().length} of 400 are served`)
    const those = served()
    await publish()
    await until(() => those.every(({ follower }) => follower.index === published), 'those that are served get it')
    for (const { socket } of clients) socket.destroy()
    await until(() => descriptors() < limit / 2, 'the descriptors are free')
    const late = follow(port, 'NDJSON')
    await until(() => late.follower.status === 200, `accepted again in round ${round}`)
    await publish()
    await until(() => late.follower.index === published, 'and served')
    late.socket.destroy()
  }
  assert.equal(child.exitCode, null)
  assert.equal(complaints(), '')
})
