import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import type { TestContext } from 'node:test'

/** What a proxy does with bytes. `hold`: it keeps what is sent until it is open again; `mute`: it drops all answers. */
export type ProxyMode = 'open' | 'hold' | 'mute' | 'refuse'

/** A TCP proxy before a server of 127.0.0.1, which fails as networks do. */
export interface CutProxy {
  readonly port: number
  mode: ProxyMode
  /** Ends every connection, from the server's side too if `everywhere`. */
  cut(everywhere?: boolean): void
  /** Resets every connection of its clients. */
  reset(): void
  /** How many connections go through it. */
  readonly connections: number
}

export async function cutProxy(t: TestContext, target: number): Promise<CutProxy> {
  const pairs = new Set<{ near: Socket; far: Socket; held: Buffer[] }>()
  let mode: ProxyMode = 'open'
  const server = createServer((near) => {
    near.on('error', () => {})
    if (mode === 'refuse') {
      near.destroy()
      return
    }
    const far = connect(target, '127.0.0.1')
    const pair = { near, far, held: [] as Buffer[] }
    pairs.add(pair)
    far.on('error', () => {})
    near.on('data', (bytes: Buffer) => {
      if (mode === 'hold') pair.held.push(bytes)
      else far.write(bytes)
    })
    far.on('data', (bytes) => {
      if (mode !== 'mute' && !near.destroyed) near.write(bytes)
    })
    far.on('close', () => {
      pairs.delete(pair)
      near.destroy()
    })
    // What was sent before the end arrives.
    near.on('close', () => pair.held.length === 0 && far.end())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    for (const { near, far } of pairs) {
      near.destroy()
      far.destroy()
    }
    server.close()
  })
  return {
    port: (server.address() as AddressInfo).port,
    get mode() {
      return mode
    },
    set mode(next) {
      mode = next
      if (next !== 'open') return
      for (const { far, held } of pairs) for (const bytes of held.splice(0)) far.write(bytes)
    },
    cut(everywhere = true) {
      for (const { near, far } of pairs) {
        near.destroy()
        if (everywhere) far.destroy()
      }
    },
    reset() {
      for (const { near } of pairs) near.resetAndDestroy()
    },
    get connections() {
      return pairs.size
    },
  }
}
