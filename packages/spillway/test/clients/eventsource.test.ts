import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { EventSource } from 'eventsource'
import { createBroker } from '../../src/core/broker.ts'
import { everything } from '../../src/core/rights.ts'
import { Feed, publishIndexes, serve, until } from '../support/http.ts'
import { restartable, twoHeartbeats } from '../support/restarts.ts'

function follow(t: TestContext, url: string, token = '') {
  const source = new EventSource(url, {
    fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, 'x-nomad-token': token } }),
  })
  t.after(() => source.close())
  const feed = new Feed<MessageEvent>()
  source.onmessage = (event) => feed.push(event)
  for (const name of ['gap', 'reset', 'closed']) source.addEventListener(name, (event) => feed.push(event))
  return { source, next: () => feed.next() as Promise<MessageEvent> }
}

const indexOf = (message: MessageEvent) => (JSON.parse(message.data as string) as { index: number }).index

test('eventsource resumes exactly after every restart of the server', async (t) => {
  const running = await restartable(t)
  const { broker, site } = running
  const { source, next } = follow(t, `${site.url}/v1/events`)
  await until(() => source.readyState === source.OPEN, 'it is open')
  let index = 0
  for (let round = 0; round < 5; round++) {
    for (let n = 0; n < 3; n++) {
      await publishIndexes(broker, ++index, index)
      assert.equal(indexOf(await next()), index)
    }
    await running.down()
    await publishIndexes(broker, index + 1, index + 3)
    await running.up()
    for (let n = 0; n < 3; n++) assert.equal(indexOf(await next()), ++index)
  }
})

test('eventsource that saw no event resumes from the last heartbeat', async (t) => {
  const running = await restartable(t)
  const { next } = follow(t, `${running.site.url}/v1/events?topic=End`)
  await until(() => running.broker.status.subscriptions === 1, 'it is open')
  await publishIndexes(running.broker, 1, 5)
  await twoHeartbeats(running.site)
  await running.down()
  await running.broker.publish({ topic: 'End', type: 'Ended' })
  await running.up()
  assert.equal(indexOf(await next()), 6)
  assert.equal(running.site.exchanges[0]?.request.headers['last-event-id'], `${running.broker.status.epoch}:5`)
})

test('eventsource is told `reset` when the server comes back without its history', async (t) => {
  const running = await restartable(t)
  const { next } = follow(t, `${running.site.url}/v1/events?from=earliest`)
  const old = running.broker
  await publishIndexes(old, 1, 3)
  for (let index = 1; index <= 3; index++) assert.equal(indexOf(await next()), index)
  await running.down()
  const broker = createBroker()
  await publishIndexes(broker, 1, 1)
  await running.up(broker)
  const reset = await next()
  assert.equal(reset.type, 'reset')
  assert.deepEqual(JSON.parse(reset.data as string), {
    reset: { after: 3, before: 1, reason: 'epoch', cursor: `${broker.status.epoch}:0` },
  })
  const message = await next()
  assert.deepEqual([message.type, indexOf(message), message.lastEventId], ['message', 1, `${broker.status.epoch}:1`])
  await old.close()
})

test('eventsource is told `closed` by a shutdown, and comes back', async (t) => {
  const running = await restartable(t)
  const { next } = follow(t, `${running.site.url}/v1/events`)
  await until(() => running.broker.status.subscriptions === 1, 'it is open')
  await running.broker.close()
  const message = await next()
  assert.equal(message.type, 'closed')
  assert.equal((JSON.parse(message.data as string) as { closed: { code: string } }).closed.code, 'SHUTDOWN')
  await running.down()
  const broker = createBroker()
  await running.up(broker)
  assert.equal((await next()).type, 'reset')
})

test('eventsource stays away once its token was revoked', async (t) => {
  let allowed = true
  const site = await serve(t, {
    handler: { retry: 20 },
    brokerOptions: {
      authorize: () => {
        if (!allowed) throw new Error('revoked')
        return everything
      },
    },
  })
  const { source, next } = follow(t, `${site.url}/v1/events`, 'a')
  await until(() => site.broker.status.subscriptions === 1, 'it is open')
  allowed = false
  site.broker.revoke('a')
  const message = await next()
  assert.equal((JSON.parse(message.data as string) as { closed: { code: string } }).closed.code, 'REVOKED')
  await until(() => source.readyState === source.CLOSED, 'it gives up')
  assert.equal(site.exchanges.length, 2)
})
