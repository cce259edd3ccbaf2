import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { SpillwayError } from '../../src/core/errors.ts'
import { everything } from '../../src/core/rights.ts'
import { type Client, type Face, faces, follow, followRequest, inParallel } from '../support/follower.ts'
import { serve, until } from '../support/http.ts'
import { seededRandom } from '../support/random.ts'
import { turn } from '../support/waiting.ts'

// The original delivers an event that was published after the revocation in 1,941 of 2,000 such races.
const races = { live: 9800, 'in replay': 5000, 'on resume': 5000, 'with a backlog in a stalled socket': 200 } as const
const width = 20

type Kind = keyof typeof races

/** A site whose tokens are good until they are revoked. */
async function revocable(t: TestContext) {
  const revoked = new Set<string>()
  const site = await serve(t, {
    brokerOptions: {
      capacity: 200,
      authorize: async ({ token }) => {
        if (revoked.has(token)) throw new SpillwayError('FORBIDDEN', 'revoked')
        await null
        return everything
      },
    },
  })
  const { broker } = site
  let newest = 0
  return {
    site,
    publish(bytes: number): void {
      newest++
      void broker.publish({ topic: 'T', type: 't', payload: 'x'.repeat(bytes) })
    },
    /** Gives the newest index that the revoked may have seen. */
    revoke(token: string): number {
      revoked.add(token)
      broker.revoke(token)
      return newest
    },
    /** Whether more waits for this reader than its connection takes. */
    isStuck(token: string): boolean {
      const { response } =
        site.exchanges.find(({ request }) => request.headers.authorization === `Bearer ${token}`) ?? {}
      return (response?.socket?.writableLength ?? 0) > 0
    },
    startOf(kind: Kind, face: Face): string | number {
      if (kind === 'live') return 'latest'
      const { epoch, newestIndex } = broker.status
      const place = Math.max(1, newestIndex - 20)
      return kind !== 'on resume' ? 'earliest' : face === 'Nomad' ? place : `${epoch}:${place}`
    },
  }
}

/** Whether nothing more will come. */
function isOver({ follower, isClosed }: Client): boolean {
  return follower.isComplete || isClosed || (follower.status !== 0 && follower.status !== 200)
}

for (const [kind, count] of Object.entries(races) as [Kind, number][]) {
  const isStalled = kind === 'with a backlog in a stalled socket'
  test(`${count} races of revoke against publish, ${kind}: nothing above the revocation is delivered`, async (t) => {
    const random = seededRandom(`revocation ${kind}`)
    const { site, publish, revoke, isStuck, startOf } = await revocable(t)
    const size = isStalled ? 40_000 : 10
    if (isStalled) for (let n = 0; n < 200; n++) publish(size)
    let told = 0
    let delivered = 0
    await inParallel(count, width, async (n) => {
      const face = faces[n % 3] as Face
      const token = `token-${n}`
      const client = follow(site.port, face, followRequest(face, { token, from: startOf(kind, face) }), {
        isPaused: isStalled,
        keepsPayloads: false,
      })
      try {
        if (isStalled) await until(() => isStuck(token), 'it is stuck')
        else if (random.below(4) > 0) await until(() => client.follower.status !== 0, 'it is open')
        for (let before = random.below(4); before > 0; before--) publish(size)
        for (let turns = random.below(3); turns > 0; turns--) await turn()
        const limit = revoke(token)
        for (let after = 1 + random.below(4); after > 0; after--) publish(size)
        client.socket.resume()
        await until(() => isOver(client), `${token} is ended`)
        const { batches, closed, status } = client.follower
        for (const { index } of batches) assert.ok(index <= limit, `${token} got ${index}, revoked at ${limit}`)
        delivered += batches.length
        if (status === 200) told++
        // Some are revoked before they are let in.
        assert.equal(status === 200 ? closed?.code : status, status === 200 ? 'REVOKED' : 403, face)
      } finally {
        client.socket.destroy()
      }
      // The newest are those that may still run.
      if (site.exchanges.length > 4 * width) site.exchanges.splice(0, 2 * width)
    })
    assert.ok(told > count / 2, `${told} of ${count} were told`)
    assert.ok(delivered > 0, 'something came before the revocations')
    await until(() => site.broker.status.subscriptions === 0, 'nobody is left')
  })
}
