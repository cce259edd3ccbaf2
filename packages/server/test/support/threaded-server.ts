import { createServer as createServerOf, type ServerOptions, type SpillwayServer } from '../../src/server.ts'

/** A server as `createServer` makes it, whose HTTP is served by threads. */
export function createServer(options: ServerOptions = {}): SpillwayServer {
  return createServerOf({ threads: Number(process.env.SPILLWAY_TEST_THREADS), ...options })
}
