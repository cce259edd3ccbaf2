// What strangers send never stands where it does not belong: threats S18 and S24.
import assert from 'node:assert/strict'
import path from 'node:path'
import { type TestContext, test } from 'node:test'
import { WebSocket } from 'ws'
import { folder } from './support/folder.ts'
import { Program, run, serve } from './support/program.ts'

/** No part of it looks like anything that a server says of its own accord. */
const canary = 'c4n4ry'

async function guarded(t: TestContext, ...args: string[]) {
  const file = path.join(await folder(t), 'tokens.json')
  const made = async (...rights: string[]) => {
    const { stdout } = await run(t, ['token', 'create', '--file', file, '--name', 'n', ...rights])
    return stdout.trim()
  }
  const all = await made('--read', '*', '--publish', '*')
  const some = await made('--read', 'Order')
  const started = await serve(t, '--auth', 'tokens', '--tokens', file, '--cookie', 'session', ...args)
  return { ...started, all, some }
}

const json = { 'content-type': 'application/json' }
const event = (names: object = {}) => JSON.stringify({ topic: 'Order', type: 't', ...names })

for (const mode of [[], ['--json']]) {
  test(`secrets of requests are in no output of the server ${mode.join('')}`, async (t) => {
    const { server, url, all, some } = await guarded(t, ...mode)
    const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
    const said: string[] = []
    const ask = async (place: string, init: RequestInit = {}) => {
      const response = await fetch(`${url}${place}`, init)
      said.push([...response.headers].join(), response.ok ? '' : await response.text())
      await response.body?.cancel().catch(() => {})
    }
    for (const place of ['/v1/events', '/v1/event/stream', '/v1/status', '/metrics']) {
      await ask(place, { headers: bearer(canary) })
      await ask(place, { headers: { 'x-nomad-token': canary } })
      await ask(place, { headers: { cookie: `session=${canary}` } })
      await ask(place, { headers: bearer(`spw_${canary}0000000000_${canary}`) })
      await ask(place, { headers: bearer(`eyJhbGciOiJub25lIn0.${canary}.${canary}`) })
      await ask(place, { headers: { authorization: `Basic ${canary}` } })
    }
    await ask(`/v1/events?ticket=${canary}`)
    await ask('/v1/tickets', { method: 'POST', headers: bearer(canary) })
    const publish = { method: 'POST', headers: { ...bearer(all), ...json } }
    await ask('/v1/events', { ...publish, headers: { ...bearer(canary), ...json }, body: event({ payload: canary }) })
    await ask('/v1/events', { ...publish, headers: { ...bearer(some), ...json }, body: event({ payload: canary }) })
    await ask('/v1/events', {
      ...publish,
      headers: { ...publish.headers, 'idempotency-key': canary },
      body: event({ payload: canary }),
    })
    await ask('/v1/events', {
      ...publish,
      headers: { ...publish.headers, 'idempotency-key': canary },
      body: event({ payload: 2 }),
    })
    await ask('/v1/events', { ...publish, body: `{"topic":"Order","type":"t","payload":"${canary}"` })
    const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/events`)
    socket.on('open', () => socket.send(JSON.stringify({ subscribe: '', token: canary })))
    const refusal = await new Promise((resolve) => socket.on('message', (data) => resolve(String(data))))
    said.push(String(refusal))
    socket.terminate()
    said.push(await (await fetch(`${url}/metrics`, { headers: bearer(all) })).text())
    said.push(await (await fetch(`${url}/v1/status`, { headers: bearer(all) })).text())

    server.kill('SIGTERM')
    await server.ended
    const output = server.stdout.text + server.stderr.text
    assert.match(output, /UNAUTHORIZED/, 'the denials are told')
    for (const secret of [canary, all.slice(-20), some.slice(-20)]) {
      assert.ok(!output.includes(secret), output)
      // The name of a publish is told to whoever gave it.
      const leaks = said.filter((text) => text.includes(secret) && !text.includes('KEY_REUSED'))
      assert.deepEqual(leaks, [])
    }
  })
}

test('a password in a url and a token in the environment are not shown by the command line', async (t) => {
  const { url } = await serve(t)
  for (const args of [
    ['status', '--url', url.replace('//', `//user:${canary}@`)],
    ['status', '--url', `http://user:${canary}@127.0.0.1:1`],
    ['tail', '--count', '1', '--url', `http://user:${canary}@127.0.0.1:1/%zz`],
    ['status', '--url', 'http://127.0.0.1:1'],
    ['status', '--url', `user:${canary}@host`],
    ['status', '--url', `ftp://127.0.0.1/?token=${canary}`],
  ]) {
    const program = new Program(t, args, { env: { SPILLWAY_TOKEN: canary } })
    await program.ended
    assert.ok(!(program.stdout.text + program.stderr.text).includes(canary), program.stderr.text)
  }
  for (const token of [`a\n${canary}`, `${canary}\u0142`]) {
    const program = new Program(t, ['status', '--url', url], { env: { SPILLWAY_TOKEN: token } })
    assert.notEqual(await program.ended, 0)
    assert.match(program.stderr.text, /SPILLWAY_TOKEN must be one token/)
    assert.ok(!program.stderr.text.includes(canary))
  }
})

const nasty = [
  'a\nb',
  'a\r\n{"level":"info"}',
  'a\u001b[31mred\u001b]0;title\u0007',
  '\u202eevil\u2066',
  '\u0085\u2028',
  'x'.repeat(5000),
]

test('what strangers name stands in the log escaped and short', async (t) => {
  for (const mode of [[], ['--json']]) {
    const { server, url, some } = await guarded(t, ...mode)
    for (const name of nasty) {
      const query = new URLSearchParams({ topic: name, filter: name })
      const headers = { authorization: `Bearer ${some}` }
      for (const place of [
        `/v1/events?${query}`,
        `/v1/events?topic=${encodeURIComponent(name)}`,
        `/v1/event/stream?${query}`,
      ]) {
        await (await fetch(url + place, { headers })).body?.cancel()
      }
      await fetch(`${url}/v1/events`, {
        method: 'POST',
        headers: { ...headers, ...json },
        body: event({ topic: name, key: name }),
      })
    }
    server.kill('SIGTERM')
    await server.ended
    const text = mode.length > 0 ? server.stdout.text : server.stderr.text
    assert.match(text, /FORBIDDEN/)
    for (const line of text.trimEnd().split('\n')) {
      assert.ok(line.length < 1500, `${line.length} characters`)
      // biome-ignore lint/suspicious/noControlCharactersInRegex: those are what must not be there
      assert.doesNotMatch(line, /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/)
      assert.doesNotMatch(line, /[\u2028\u2029\p{Cf}]/u)
      if (mode.length > 0) assert.equal(typeof JSON.parse(line).msg, 'string')
      else assert.match(line, /^\d\d:\d\d:\d\d /)
    }
  }
})
