import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo, Server, Socket } from 'node:net'
import { createServer as createTcpServer } from 'node:net'
import { test } from 'node:test'
import { socketConformance } from '../../src/sockets/conformance.ts'
import { socketContender } from '../../src/sockets/contenders.ts'
import { eventText, sseText } from '../../src/sockets/event.ts'
import { noCompiler } from '../../src/sockets/native.ts'
import { pathNames } from '../../src/sockets/scenario.ts'
import { LoadClient } from '../../src/sockets/stage.ts'

const withoutGcc = await noCompiler()
const clients = [
  { client: 'native', skip: withoutGcc ?? false },
  { client: 'node', skip: false },
] as const

for (const { client, skip } of clients) {
  test(`${client}: readers of spillway get every event once, in order`, { skip }, async () => {
    assert.equal(await socketConformance(socketContender('spillway'), client), undefined)
  })

  for (const name of pathNames) {
    test(`${client}: readers of ${name} get every event once, in order`, { skip }, async () => {
      assert.equal(await socketConformance(socketContender(name), client), undefined)
    })
  }

  test(`${client}: HTTP/2 streams are told apart`, { skip }, async () => {
    assert.equal(await socketConformance(socketContender('node:http2 stream.write'), client), undefined)
  })

  test(`${client}: a marker may be cut by chunks, and what is lost or repeated is counted`, { skip }, async (t) => {
    const answers = await answersOf(t, client, (socket) => {
      socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
      // Lost: 3 and 4. Repeated: the second 5 and the late 2.
      for (const seq of [1, 2, 5, 5, 2, 6]) {
        for (const part of sseText(seq, eventText(seq)).match(/.{1,7}/gs) ?? []) {
          socket.write(`${part.length.toString(16)}\r\n${part}\r\n`)
        }
      }
    })
    assert.partialDeepStrictEqual(answers, [
      { missing: 0, failure: '' },
      { short: 0, lost: 4, repeated: 4, gone: 0 },
      { events: 12, lost: 4, repeated: 4, gone: 0 },
    ])
  })

  test(`${client}: streams that are short of an event are counted`, { skip }, async (t) => {
    let served = 0
    const answers = await answersOf(t, client, (socket) => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      for (let seq = 1; seq <= (served === 0 ? 6 : 5); seq++) socket.write(sseText(seq, eventText(seq)))
      served++
    })
    assert.partialDeepStrictEqual(answers[1], { short: 1, lost: 0, repeated: 0 })
  })

  test(`${client}: a response that ends or is refused is reported`, { skip }, async (t) => {
    const [, ended] = await answersOf(t, client, (socket) => void socket.end('HTTP/1.1 200 OK\r\n\r\n'))
    assert.partialDeepStrictEqual(ended, { gone: 2, failure: 'the connection was closed' })
    const [refused] = await answersOf(t, client, (socket) => void socket.write('HTTP/1.1 503 Busy\r\n\r\n'))
    assert.partialDeepStrictEqual(refused, { failure: 'answered HTTP/1.1 503 Busy' })
  })

  test(`${client}: a stalled client reads no more`, { skip }, async (t) => {
    const server = createServer((_request, response) => {
      response.writeHead(200)
      const fill = () => {
        while (response.write(sseText(1, eventText(1))));
      }
      response.on('drain', fill)
      fill()
    })
    const load = await startLoad(t, client, server)
    assert.partialDeepStrictEqual(await load.ask('stall 1 0 5000'), { missing: 0 })
    await load.ask('stats')
    assert.partialDeepStrictEqual(await load.ask('wait 1 100'), { short: 0 })
    assert.partialDeepStrictEqual(await load.ask('stats'), { events: 0, bytes: 0 })
  })
}

type Context = { after(end: () => unknown): void }

/** What a client with two connections says of a server that answers any request with `serve`. */
async function answersOf(t: Context, client: 'native' | 'node', serve: (socket: Socket) => void): Promise<unknown[]> {
  const server = createTcpServer({ noDelay: true }, (socket) => {
    socket.on('error', () => {}).once('data', () => serve(socket))
  })
  const load = await startLoad(t, client, server)
  return [await load.ask('open 2 0 5000'), await load.ask('wait 6 300'), await load.ask('stats')]
}

async function startLoad(t: Context, client: 'native' | 'node', server: Server): Promise<LoadClient> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => server.close())
  const load = await LoadClient.start(socketContender('spillway'), (server.address() as AddressInfo).port, client)
  t.after(() => load.end())
  return load
}
