import type { TestContext } from 'node:test'
import { type Broker, createBroker } from '../../src/core/broker.ts'
import { type Site, serve, until } from './http.ts'

/** A server that can be taken down and come back on the same port, with its broker or with a new one. */
export interface RestartableSite {
  site: Site
  broker: Broker
  down(): Promise<void>
  up(broker?: Broker): Promise<void>
}

/** Clients are told to come back after 20 ms. */
export async function restartable(t: TestContext): Promise<RestartableSite> {
  const handler = { retry: 20, heartbeat: 200 }
  const broker = createBroker({ capacity: 1000 })
  const running: RestartableSite = {
    broker,
    site: await serve(t, { broker, handler }),
    down: () => running.site.stop(),
    async up(broker = running.broker) {
      running.broker = broker
      running.site = await serve(t, { broker, handler, port: running.site.port })
    },
  }
  t.after(() => running.broker.close())
  return running
}

/** Waits until the newest stream of a site has sent two signs of life: its client has read the first by then. */
export async function twoHeartbeats({ exchanges }: Site): Promise<void> {
  const stream = exchanges.findLast(({ request }) => request.url?.startsWith('/v1/events'))
  const written = () => stream?.response.socket?.bytesWritten ?? 0
  for (let n = 0; n < 2; n++) {
    const before = written()
    await until(() => written() > before, 'a heartbeat')
  }
}
