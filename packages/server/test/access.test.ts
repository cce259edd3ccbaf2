import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { copyFileSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { get } from 'node:https'
import { connect } from 'node:net'
import path from 'node:path'
import { type TestContext, test } from 'node:test'
import type { Rights } from 'spillway'
import { SpillwayError } from 'spillway'
import { createClient } from 'spillway/client'
import { WebSocket } from 'ws'
import type { Authenticator } from '../src/auth/authenticator.ts'
import { Hosts } from '../src/hosts.ts'
import { createServer, type ServerOptions } from '../src/server.ts'
import { openCertificate } from '../src/tls.ts'
import { folder as temporaryFolder } from './support/folder.ts'
import { Program, serve } from './support/program.ts'
import { RecordedLog } from './support/recorder.ts'

async function start(t: TestContext, options: ServerOptions = {}, address = '127.0.0.1') {
  const server = createServer(options)
  t.after(() => server.close({ grace: 0 }))
  return { server, url: await server.listen({ host: address }) }
}

/** Tokens that a test says. */
function known(tokens: Record<string, Rights>): Authenticator {
  return {
    rightsOf(token) {
      const rights = Object.hasOwn(tokens, token) ? tokens[token] : undefined
      if (!rights) throw new SpillwayError('UNAUTHORIZED', 'The token is not valid.')
      return rights
    },
    onChange: () => () => {},
    close: async () => {},
  }
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` })

/** The status of a request for another host than that it is sent to. */
function statusFor(url: string, host: string, headers: Record<string, string> = {}): Promise<number> {
  return new Promise((resolve, reject) => {
    request(`${url}/healthz`, { headers: { ...headers, host } }, (response) => {
      response.resume()
      resolve(response.statusCode ?? 0)
    })
      .on('error', reject)
      .end()
  })
}

test('tokens of a file come in, do what they may, and are put out when they are revoked', async (t) => {
  const folder = await temporaryFolder(t)
  const file = path.join(folder, 'tokens.json')
  const made = async (...args: string[]) => {
    const program = new Program(t, ['token', 'create', '--file', file, '--name', 'test', ...args])
    assert.equal(await program.ended, 0, program.stderr.text)
    return program.stdout.text.trim()
  }
  const reader = await made('--read', 'Order')
  const writer = await made('--publish', 'Order', '--publish', 'Secret')
  const { server, url } = await serve(t, '--auth', 'tokens', '--tokens', file)
  assert.equal((await fetch(`${url}/v1/events`)).status, 401)
  assert.equal((await fetch(`${url}/v1/events`, { headers: bearer(writer) })).status, 403)
  assert.equal((await fetch(`${url}/metrics`, { headers: bearer(reader) })).status, 403)

  const publisher = createClient({ url, headers: bearer(writer) })
  const subscription = createClient({ url, headers: bearer(reader) }).subscribe({ from: 'earliest' })
  await subscription.ready
  await publisher.publish([{ topic: 'Secret', type: 't' }])
  await publisher.publish({ topic: 'Order', type: 'mine' })
  assert.deepEqual(
    (await subscription.next()).events.map(({ topic }) => topic),
    ['Order'],
  )
  await assert.rejects(publisher.publish({ topic: 'Job', type: 't' }), { code: 'FORBIDDEN' })

  const [, id = ''] = /^spw_([a-z0-9]+)_/.exec(reader) ?? []
  const ended = assert.rejects(subscription.next(), { code: 'REVOKED' })
  assert.equal(await new Program(t, ['token', 'revoke', '--file', file, id]).ended, 0)
  await ended
  await server.stderr.line(/Denied: read for token:\w+ at 127\.0\.0\.1, REVOKED/)
  await server.stderr.line(/Denied: publish for token:\w+ at 127\.0\.0\.1, FORBIDDEN/)
  assert.doesNotMatch(
    server.stderr.text + server.stdout.text,
    new RegExp([reader, writer].map((token) => token.slice(-20)).join('|')),
  )
})

test('serve refuses options of access that do not go together, and files that are not there', async (t) => {
  const folder = await temporaryFolder(t)
  for (const [args, message] of [
    [['--auth', 'maybe'], /--auth must be none or tokens or jwt/],
    [['--tokens', 'x'], /--tokens is for --auth tokens/],
    [['--auth', 'tokens', '--jwt-issuer', 'x'], /--jwt-issuer is for --auth jwt/],
    [['--auth', 'tokens', '--tokens', `${folder}/none.json`], /There is no .*none\.json\. Make a token first/],
    [['--auth', 'jwt'], /--auth jwt needs --jwt-issuer, --jwt-audience and --jwt-keys/],
    [
      ['--auth', 'jwt', '--jwt-issuer', 'https://i', '--jwt-audience', 'a', '--jwt-keys', 'http://10.0.0.1/jwks'],
      /https/,
    ],
    [['--tls-cert', 'x'], /--tls-cert and --tls-key go together/],
    [['--tls-cert', `${folder}/c`, '--tls-key', `${folder}/k`], /cannot be read/],
  ] as const) {
    const program = new Program(t, ['serve', '--memory', '--port', '0', ...args])
    assert.notEqual(await program.ended, 0, args.join(' '))
    assert.match(program.stderr.text, message)
  }
})

test('what the server counts is for who may read all, and its series do not grow with what strangers send', async (t) => {
  const auth = known({
    all: { read: 'all', publish: 'all', subject: 'ann' },
    some: { read: [{ topics: { A: ['*'] } }], publish: [], subject: 'bob' },
  })
  const { url, server } = await start(t, { auth, maxBody: 100 })
  await server.broker.publish({ topic: 'A', type: 't' })
  const scrape = async (token: string) => fetch(`${url}/metrics`, { headers: bearer(token) })
  for (const [token, status] of [
    ['', 401],
    ['wrong', 401],
    ['some', 403],
  ] as const) {
    const response = await scrape(token)
    assert.deepEqual([response.status, await response.text()], [status, ''])
  }
  for (let n = 0; n < 50; n++) await fetch(`${url}/v1/events?topic=t${n}`, { headers: bearer(`wrong-${n}`) })
  const headers = { ...bearer('all'), 'content-type': 'application/json' }
  const large = await fetch(`${url}/v1/events`, { method: 'POST', headers, body: JSON.stringify('x'.repeat(200)) })
  assert.equal(large.status, 413)
  const response = await scrape('all')
  assert.equal(response.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8')
  const text = await response.text()
  assert.match(text, /^spillway_denied_total\{code="UNAUTHORIZED",action="read"\} 50$/m)
  assert.match(text, /^spillway_denied_total\{code="TOO_LARGE",action="publish"\} 1$/m)
  assert.match(text, /^spillway_denied_total\{code="UNAUTHORIZED",action="metrics"\} 2$/m)
  assert.match(text, /^spillway_newest_index 1$/m)
  assert.ok(text.split('\n').length < 60)
  assert.doesNotMatch(text, /wrong-|ann|bob/)
})

test('a server on this machine answers only under its names, whatever a name leads to', async (t) => {
  const { url } = await start(t, { hosts: ['Events.example'] })
  const { port } = new URL(url)
  for (const host of [`localhost:${port}`, '127.0.0.1', `[::1]:${port}`, 'events.example', `EVENTS.example:${port}`]) {
    assert.equal(await statusFor(url, host), 200, host)
  }
  for (const host of [`evil.test:${port}`, 'localhost.evil.test', '127.0.0.1.evil.test', 'events.example.evil.test']) {
    assert.equal(await statusFor(url, host), 421, host)
  }
  const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/events`, { headers: { host: 'evil.test' } })
  const [status] = await new Promise<[number]>((resolve) => {
    socket.on('unexpected-response', (_request, response) => resolve([response.statusCode ?? 0]))
    socket.on('error', () => {})
  })
  socket.terminate()
  assert.equal(status, 421)
  assert.equal(new Hosts('2001:db8::1', ['a.example']).has('[2001:db8::1]:4747'), true)
  for (const name of ['a.example:8443', 'http://a', ''])
    assert.throws(() => new Hosts('10.0.0.1', [name]), /without a port/)
  const anywhere = await start(t, {}, '0.0.0.0')
  assert.equal(await statusFor(anywhere.url.replace('0.0.0.0', '127.0.0.1'), 'any.example'), 200)
})

test('beyond maxConnections a connection is closed at once', async (t) => {
  const { url } = await start(t, { maxConnections: 2 })
  const { port } = new URL(url)
  const opened = await Promise.all(
    [1, 2, 3].map(async () => {
      const socket = connect(Number(port), '127.0.0.1')
      t.after(() => socket.destroy())
      socket.write('GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n')
      return new Promise<string>((resolve) => {
        socket.on('data', (data) => resolve(String(data).slice(9, 12)))
        socket.on('close', () => resolve('closed'))
        socket.on('error', () => resolve('closed'))
      })
    }),
  )
  assert.deepEqual(opened.sort(), ['200', '200', 'closed'])
})

test('a request that is none, or has too long a head, is answered with its status and counted', async (t) => {
  const { url } = await start(t)
  const { port } = new URL(url)
  const answer = (text: string) =>
    new Promise<string>((resolve) => {
      const socket = connect(Number(port), '127.0.0.1')
      let received = ''
      socket.on('data', (data) => {
        received += data
      })
      socket.on('error', () => {})
      socket.on('close', () => resolve(received.slice(9, 12)))
      socket.write(text)
    })
  assert.equal(await answer('nonsense\r\n\r\n'), '400')
  assert.equal(await answer(`GET /?${'x'.repeat(70_000)} HTTP/1.1\r\nHost: localhost\r\n\r\n`), '431')
  const smuggled =
    'POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'
  assert.equal(await answer(smuggled), '400')
  assert.match(await (await fetch(`${url}/metrics`)).text(), /^spillway_bad_requests_total 3$/m)
})

/** A certificate for localhost, signed by itself. */
function certificate(folder: string, name: string): { certFile: string; keyFile: string } {
  const [certFile, keyFile] = ['crt', 'key'].map((end) => path.join(folder, `${name}.${end}`)) as [string, string]
  execFileSync(
    'openssl',
    [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'],
      ...[
        '-subj',
        `/CN=${name}`,
        '-addext',
        'subjectAltName=DNS:localhost,IP:127.0.0.1',
        '-keyout',
        keyFile,
        '-out',
        certFile,
      ],
    ],
    { stdio: 'ignore' },
  )
  return { certFile, keyFile }
}

function nameOf(url: string, ca: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    get(`${url}/healthz`, { ca: [...ca], agent: false }, (response) => {
      const { subject } = (response.socket as import('node:tls').TLSSocket).getPeerCertificate()
      response.resume()
      response.on('end', () => resolve(String(subject.CN)))
    }).on('error', reject)
  })
}

test('a certificate is replaced while the server runs; what does not fit together changes nothing', async (t) => {
  const folder = await temporaryFolder(t)
  const [first, second] = ['first', 'second'].map((name) => certificate(folder, name)) as [
    ReturnType<typeof certificate>,
    ReturnType<typeof certificate>,
  ]
  const ca = [first, second].map(({ certFile }) => readFileSync(certFile, 'utf8'))
  const files = { certFile: path.join(folder, 'tls.crt'), keyFile: path.join(folder, 'tls.key') }
  copyFileSync(first.certFile, files.certFile)
  copyFileSync(first.keyFile, files.keyFile)
  const log = new RecordedLog()
  const { url } = await start(t, { certificate: await openCertificate({ ...files, log, interval: 20 }) })
  assert.match(url, /^https:/)
  assert.equal(await nameOf(url, ca), 'first')
  copyFileSync(second.certFile, `${files.certFile}.new`)
  renameSync(`${files.certFile}.new`, files.certFile)
  await log.line(/stays in force/)
  assert.equal(await nameOf(url, ca), 'first')
  copyFileSync(second.keyFile, files.keyFile)
  await log.line(/was replaced/)
  assert.equal(await nameOf(url, ca), 'second')
})

test('a certificate that cannot be used is refused by name, and its key is not shown', async (t) => {
  const folder = await temporaryFolder(t)
  const { certFile, keyFile } = certificate(folder, 'a')
  const bad = path.join(folder, 'bad.key')
  writeFileSync(bad, readFileSync(keyFile, 'utf8').replace(/[A-Z]/g, 'x'))
  await assert.rejects(openCertificate({ certFile, keyFile: bad }), (error: SpillwayError) => {
    assert.equal(error.code, 'CONFIG')
    assert.match(error.message, /a\.crt and .*bad\.key are no certificate and its key/)
    assert.doesNotMatch(error.message, /xxx/)
    return true
  })
})
