import type { Face, SocketContender } from './contender.ts'
import { hello } from './h2.ts'
import { inThread, ourPath, pathNames } from './scenario.ts'

const sse = (path: string): Face => ({
  mode: 'http',
  request: `GET ${path} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n`,
  ready: '\r\n\r\n',
})
const h2 = (path: string): Face => ({ mode: 'h2', streams: 100, request: hello(path, 100), ready: '' })

const upgrade =
  'GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: c3BpbGx3YXkgYmVuY2ghIQ==\r\n\r\n'

export const socketContenders: readonly SocketContender[] = [
  {
    name: 'spillway',
    role: 'ours',
    from: 'spillway',
    face: sse('/v1/events'),
    load: async () => (await import('./servers/spillway.ts')).overHttp,
  },
  {
    name: 'spillway, rounds of 10 ms',
    role: 'ours',
    from: 'spillway',
    face: sse('/v1/events'),
    load: async () => (await import('./servers/spillway.ts')).inRounds,
  },
  {
    name: inThread,
    role: 'ours',
    from: 'spillway',
    face: sse('/v1/events'),
    load: async () => (await import('./servers/threaded.ts')).inThread,
  },
  {
    name: 'spillway, HTTP/2',
    role: 'ours',
    from: 'spillway',
    face: h2('/v1/events'),
    load: async () => (await import('./servers/spillway.ts')).overHttp2,
  },
  {
    name: 'node:http res.write',
    role: 'peer',
    face: sse('/'),
    load: async () => (await import('./servers/http.ts')).http,
  },
  {
    name: 'node:http2 stream.write',
    role: 'peer',
    face: h2('/'),
    load: async () => (await import('./servers/http.ts')).http2,
  },
  {
    name: 'better-sse',
    role: 'peer',
    from: 'better-sse',
    face: sse('/'),
    load: async () => (await import('./servers/better-sse.ts')).betterSse,
  },
  {
    name: 'fastify + @fastify/sse',
    role: 'peer',
    from: '@fastify/sse',
    face: sse('/'),
    load: async () => (await import('./servers/fastify.ts')).fastifySse,
  },
  {
    name: 'hono streamSSE',
    role: 'peer',
    from: 'hono',
    face: sse('/'),
    load: async () => (await import('./servers/hono.ts')).honoSse,
  },
  {
    name: 'express + res.write',
    role: 'peer',
    from: 'express',
    face: sse('/'),
    load: async () => (await import('./servers/express.ts')).expressSse,
  },
  {
    name: 'ws',
    role: 'peer',
    from: 'ws',
    face: { mode: 'raw', request: upgrade, ready: '\r\n\r\n' },
    load: async () => (await import('./servers/ws.ts')).webSocket,
  },
  {
    name: 'nats-server',
    role: 'peer',
    needs: 'nats-server',
    face: { mode: 'raw', request: 'CONNECT {"verbose":false}\r\nSUB bench 1\r\nPING\r\n', ready: 'PONG\r\n' },
    load: async () => (await import('./servers/brokers.ts')).nats,
  },
  {
    name: 'redis pub/sub',
    role: 'peer',
    needs: 'redis-server',
    face: { mode: 'raw', request: '*2\r\n$9\r\nSUBSCRIBE\r\n$5\r\nbench\r\n', ready: '$5\r\nbench\r\n:1\r\n' },
    load: async () => (await import('./servers/brokers.ts')).redis,
  },
  {
    name: 'floor: net, a write per event',
    role: 'floor',
    face: sse('/'),
    load: async () => (await import('./servers/net.ts')).writePerEvent,
  },
  {
    name: 'floor: net, a write per burst',
    role: 'floor',
    face: sse('/'),
    load: async () => (await import('./servers/net.ts')).writePerBurst,
  },
  {
    name: 'floor: C, epoll, a write per event',
    role: 'floor',
    native: true,
    face: sse('/'),
    load: async () => (await import('./servers/native.ts')).epollPerEvent,
  },
  {
    name: 'floor: C, epoll, a write per burst',
    role: 'floor',
    native: true,
    face: sse('/'),
    load: async () => (await import('./servers/native.ts')).epollPerBurst,
  },
  ...pathNames.map((name): SocketContender => {
    return {
      name,
      role: name === ourPath ? 'ours' : 'peer',
      face: sse('/'),
      async load() {
        const { overPath } = await import('./servers/paths.ts')
        return () => overPath(name)
      },
    }
  }),
]

export function socketContender(name: string): SocketContender {
  const found = socketContenders.find((contender) => contender.name === name)
  if (!found) throw new Error(`There is no contender "${name}".`)
  return found
}
