import { once } from 'node:events'
import { cp, rm } from 'node:fs/promises'
import { type AddressInfo, createServer, connect as netConnect, type Socket } from 'node:net'
import path from 'node:path'
import type { TestContext } from 'node:test'
import { type JetStreamManager, jetstreamManager } from '@nats-io/jetstream'
import { connect, type NatsConnection } from '@nats-io/transport-node'
import { type NatsServer, type NatsServerOptions, natsPrograms, startNats } from '@spillway/engines'
import { type JetStreamLog, type JetStreamLogOptions, jetstreamLog } from '../../src/log/jetstream.ts'

/** Why tests with the engine are skipped; `false` where they run. */
export const noNats: string | false = natsPrograms().length > 0 ? false : 'there is no nats-server'

/** A nats-server, and as many connections and logs as a test wants, which end with it. */
export interface NatsSite {
  server: NatsServer
  /** To `url`, which leads to the server. Default: its own. */
  connection(url?: string): Promise<NatsConnection>
  /** A log over a connection of its own, as another server has it. */
  open(options?: Partial<JetStreamLogOptions>): Promise<JetStreamLog>
  manager(): Promise<JetStreamManager>
}

export async function natsSite(t: TestContext, options: NatsServerOptions = {}): Promise<NatsSite> {
  const site: { server: NatsServer } = { server: await startNats(options) }
  const undo: (() => Promise<unknown>)[] = []
  t.after(async () => {
    for (const end of undo.reverse()) await end()
    await site.server.remove()
  })
  const connection = async (url = site.server.url) => {
    const made = await connect({
      servers: url,
      maxReconnectAttempts: -1,
      reconnectTimeWait: 50,
      ignoreClusterUpdates: true,
    })
    undo.push(() => made.close())
    return made
  }
  return Object.assign(site, {
    connection,
    async open(more: Partial<JetStreamLogOptions> = {}) {
      const log = await jetstreamLog({ connection: await connection(), stream: 'events', patience: 20_000, ...more })
      undo.push(() => log.close())
      return log
    },
    manager: async () => jetstreamManager(await connection()),
  })
}

/**
 * Stops the engine, and gives what sets its disk back to how it is now, as a power cut does to one that is not written
 * through; the engine must have ended by then. It runs again meanwhile.
 */
export async function rememberDisk(site: NatsSite): Promise<() => Promise<void>> {
  await site.server.stop('SIGTERM')
  const kept = path.join(site.server.folder, 'jetstream')
  await cp(kept, `${kept}.old`, { recursive: true })
  site.server = await site.server.restart()
  return async () => {
    await rm(kept, { recursive: true })
    await cp(`${kept}.old`, kept, { recursive: true })
  }
}

/** A way to a port of this machine that can be cut: what is open is reset, and nothing new gets through until it is mended. */
export async function cuttableLine(
  t: TestContext,
  port: number,
): Promise<{ readonly url: string; cut(): void; mend(): void }> {
  const sockets = new Set<Socket>()
  let isCut = false
  const proxy = createServer((socket) => {
    if (isCut) return socket.destroy()
    const onward = netConnect(port, '127.0.0.1')
    for (const [end, other] of [
      [socket, onward],
      [onward, socket],
    ] as const) {
      sockets.add(end)
      // A pipe ends its other end with an end, but not with a reset.
      end
        .on('error', () => {})
        .on('close', () => {
          sockets.delete(end)
          other.destroy()
        })
      end.pipe(other)
    }
    return undefined
  }).listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  const cut = () => {
    isCut = true
    for (const socket of sockets) socket.destroy()
  }
  t.after(() => {
    cut()
    proxy.close()
  })
  const { port: own } = proxy.address() as AddressInfo
  return {
    url: `nats://127.0.0.1:${own}`,
    cut,
    mend: () => {
      isCut = false
    },
  }
}

/** A log over a line that can be cut, and what its followers are told beside batches. */
export async function logOverLine(t: TestContext, site: NatsSite) {
  const line = await cuttableLine(t, site.server.port)
  const connection = await site.connection(line.url)
  const slow = await site.open({ connection })
  const news: string[] = []
  slow.follow(() => {}, {
    missed: (upTo) => news.push(`missed ${upTo}`),
    rights: ({ subject }) => news.push(`rights ${subject}`),
    ended: () => news.push('ended'),
  })
  return { line, connection, slow, news }
}
