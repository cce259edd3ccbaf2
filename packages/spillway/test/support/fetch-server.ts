import { createBroker } from '../../src/core/broker.ts'
import { toFetchHandler } from '../../src/http/fetch.ts'

// A server in Bun or Deno, on a port that it prints.
interface Runtime {
  Bun?: { serve(options: object): { port: number } }
  Deno?: { serve(options: object, handler: unknown): { addr: { port: number } } }
}
const { Bun, Deno } = globalThis as Runtime
const handler = toFetchHandler(createBroker({ capacity: 100 }), { heartbeat: 200, prefix: '/api' })
const options = { port: 0, hostname: '127.0.0.1' }
const port = Bun
  ? Bun.serve({ ...options, idleTimeout: 0, fetch: handler }).port
  : Deno?.serve({ ...options, onListen: () => {} }, handler).addr.port
console.log(port)
