import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { type TestContext, test } from 'node:test'
import { faces, follow, followRequest } from '../support/follower.ts'
import { ask, post, serve, until } from '../support/http.ts'
import { quantile } from '../support/latency.ts'
import { findProgram, start } from '../support/programs.ts'

/** A port that was free a moment ago. */
function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })
}

interface Proxy {
  readonly name: string
  readonly program: string
  config(dir: string, port: number, upstream: number): string
  args(dir: string, file: string): string[]
}

const nginx = (version: string) => (dir: string, port: number, upstream: number) =>
  `
daemon off; master_process off; pid ${dir}/pid; error_log stderr;
events { worker_connections 256; }
http {
  access_log off;
  client_body_temp_path ${dir}/body; proxy_temp_path ${dir}/proxy; fastcgi_temp_path ${dir}/f; uwsgi_temp_path ${dir}/u; scgi_temp_path ${dir}/s;
  server { listen 127.0.0.1:${port}; location / { proxy_pass http://127.0.0.1:${upstream}; ${version} } }
}`

const proxies: readonly Proxy[] = [
  {
    name: 'nginx with HTTP/1.1',
    program: 'nginx',
    config: nginx('proxy_http_version 1.1; proxy_set_header Connection "";'),
    args: (dir, file) => ['-p', dir, '-c', file, '-e', 'stderr'],
  },
  {
    name: 'nginx as it comes',
    program: 'nginx',
    config: nginx(''),
    args: (dir, file) => ['-p', dir, '-c', file, '-e', 'stderr'],
  },
  {
    name: 'haproxy with option http-no-delay',
    program: 'haproxy',
    config: (_dir, port, upstream) => `
defaults
  mode http
  option http-no-delay
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend front
  bind 127.0.0.1:${port}
  default_backend back
backend back
  server one 127.0.0.1:${upstream}
`,
    args: (_dir, file) => ['-db', '-f', file],
  },
  {
    name: 'caddy as it comes',
    program: 'caddy',
    config: (_dir, port, upstream) => `{
  admin off
  auto_https off
}
http://127.0.0.1:${port} {
  reverse_proxy 127.0.0.1:${upstream}
}
`,
    args: (_dir, file) => ['run', '--config', file, '--adapter', 'caddyfile'],
  },
]

async function startProxy(t: TestContext, { args, config, program }: Proxy, upstream: number): Promise<number> {
  const dir = mkdtempSync(path.join(tmpdir(), 'spillway-proxy-'))
  const port = await freePort()
  const file = path.join(dir, 'config')
  writeFileSync(file, config(dir, port, upstream))
  const { child, complaints } = start(t, findProgram(program) as string, args(dir, file), {
    env: { ...process.env, HOME: dir, XDG_DATA_HOME: dir, XDG_CONFIG_HOME: dir },
  })
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  await until(
    async () => {
      assert.equal(child.exitCode, null, complaints())
      return await ask({ port }, '/healthz').then(
        ({ status }) => status === 200,
        () => false,
      )
    },
    () => `${program} serves: ${complaints()}`,
  )
  return port
}

for (const proxy of proxies) {
  const skip = findProgram(proxy.program) ? false : `${proxy.program} is not installed`
  test(`behind ${proxy.name} every event comes at once, in order, and a stream resumes exactly`, {
    skip,
  }, async (t) => {
    const site = await serve(t, { handler: { heartbeat: 100 } })
    const port = await startProxy(t, proxy, site.port)
    for (const face of faces) {
      const first = site.broker.status.newestIndex + 1
      const host = `127.0.0.1:${port}`
      const client = follow(port, face, followRequest(face, { host, from: face === 'Nomad' ? first - 1 : 'latest' }))
      t.after(() => client.socket.destroy())
      await until(() => client.follower.status === 200 && site.broker.status.subscriptions === 1, 'opened')
      if (face !== 'Nomad') await until(() => client.follower.cursor !== undefined, 'the opening comes at once')
      const took: number[] = []
      for (let n = 0; n < 100; n++) {
        const began = performance.now()
        const index = await site.broker.publish({ topic: 'T', type: 't', payload: n })
        // The next is published only once this one has come: nothing is held back until there is more.
        await until(() => client.follower.index === index, `event ${n}`)
        took.push(performance.now() - began)
      }
      took.sort((a, b) => a - b)
      const report = `${face} behind ${proxy.name}: p50 ${quantile(took, 0.5).toFixed(2)} ms, p99 ${quantile(took, 0.99).toFixed(2)} ms`
      console.log(report)
      assert.ok(quantile(took, 0.9) < 50, report)
      const { signsOfLife } = client.follower
      await until(() => client.follower.signsOfLife > signsOfLife, 'a sign of life')
      client.socket.destroy()
      await until(() => site.broker.status.subscriptions === 0, 'the proxy passes on that the client has gone')
      for (let n = 100; n < 200; n++) await site.broker.publish({ topic: 'T', type: 't', payload: n })
      const again = follow(port, face, client.follower.resumption.replace('Host: localhost', `Host: ${host}`))
      await until(() => again.follower.index === site.broker.status.newestIndex, 'the rest')
      // Nomad's face begins with the newest where there is none at its index yet; its clients pass over that.
      const all = [...client.follower.batches, ...again.follower.batches].filter(({ index }) => index >= first)
      assert.deepEqual(
        all,
        Array.from({ length: 200 }, (_, n) => ({ index: first + n, payloads: [n] })),
      )
      again.socket.destroy()
      await until(() => site.broker.status.subscriptions === 0, 'gone')
    }
    const { status } = await post({ port }, { events: [{ topic: 'T', type: 't' }] })
    assert.equal(status, 200)
  })
}
