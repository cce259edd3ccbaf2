import assert from 'node:assert/strict'
import { test } from 'node:test'
import { EventSource } from 'eventsource'
import fc from 'fast-check'
import { encodeEvents, JsonText, StoredBatch } from '../../src/core/event.ts'
import { type Format, ndjsonFormat, nomadFormat, sseFormat } from '../../src/http/format.ts'
import { ask, Feed, post, serve } from '../support/http.ts'
import { breaks, injections, spaced } from '../support/injections.ts'
import { seededRandom } from '../support/random.ts'
import { sseBlocks } from '../support/sse.ts'
import { followLines, followNdjson, followSse } from '../support/streams.ts'

test('nothing in a field makes a second frame: one event in is one event out, in every format and parser', async (t) => {
  const site = await serve(t)
  const source = new EventSource(`${site.url}/v1/events?from=earliest`)
  t.after(() => source.close())
  const sourced = new Feed<MessageEvent>()
  source.onmessage = (event) => sourced.push(event)
  for (const name of ['gap', 'reset', 'closed', 'open']) {
    source.addEventListener(name, (event) => assert.ok(!('data' in event), `an event ${name}`))
  }
  const events = await followSse(t, site)
  const lines = await followNdjson(t, site)
  const nomad = await followLines(t, site, '/v1/event/stream?namespace=*')
  await events.nextBlock()
  await lines.nextLine()
  await nomad.nextLine()
  let index = 0
  for (const { event, payload } of injections) {
    index++
    await site.broker.publish(event)
    const cursor = `${site.broker.status.epoch}:${index}`
    const { topic, type, key = '', namespace = '', filterKeys = [] } = event
    const batch = { index, cursor, events: [{ topic, type, key, namespace, filterKeys, payload }] }
    const block = await events.nextBlock()
    assert.deepEqual(
      block?.fields.map(([name]) => name),
      ['id', 'data'],
    )
    assert.deepEqual([block?.message?.type, block?.message?.lastEventId], ['message', cursor])
    assert.deepEqual(JSON.parse(block?.message?.data ?? ''), batch)
    const message = await sourced.next()
    assert.deepEqual([message?.type, message?.lastEventId], ['message', cursor])
    assert.deepEqual(JSON.parse(message?.data as string), batch)
    assert.deepEqual(await lines.next(), batch)
    const line = (await nomad.next()) as { Index: number; Events: { Payload: unknown; Key: string }[] }
    assert.deepEqual(
      [line.Index, line.Events.length, line.Events[0]?.Payload, line.Events[0]?.Key],
      [index, 1, payload, key],
    )
  }
  assert.deepEqual([events.parser.rest, lines.rest(), nomad.rest()], ['', '', ''])
})

test('raw line breaks between the tokens of a posted payload never reach the wire', async (t) => {
  const site = await serve(t)
  const events = await followSse(t, site)
  const lines = await followNdjson(t, site)
  await events.nextBlock()
  await lines.nextLine()
  for (const space of ['\n', '\r', '\r\n', '\n\n', '\n\ndata'.slice(0, 2), '\t\r\n ']) {
    const event = { topic: 'T', type: 't', payload: { data: ['evil'], '}\n{': '\n\n' } }
    const answer = await post(
      site,
      spaced(event, () => space),
    )
    assert.equal(answer.status, 200, answer.text)
    for (const found of [JSON.parse((await events.nextMessage())?.data ?? ''), await lines.next()]) {
      assert.deepEqual((found as { events: { payload: unknown }[] }).events[0]?.payload, event.payload)
    }
  }
})

test('no part of a request comes back in a header or as a second line of a refusal', async (t) => {
  const site = await serve(t)
  for (const text of breaks) {
    const escaped = [...new TextEncoder().encode(text)].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('')
    for (const path of [
      `/v1/events?from=${escaped}`,
      `/v1/events?${escaped}=1`,
      `/v1/events?topic=:${escaped}`,
      `/v1/event/stream?index=${escaped}x`,
    ]) {
      const answer = await ask(site, path)
      assert.equal(answer.status, 400, path)
      assert.ok(!/[\r\n\0]/.test(answer.text), `${path}: ${JSON.stringify(answer.text)}`)
      for (const name of Object.keys(answer.headers)) {
        assert.match(name, /^(content-type|content-length|cache-control|date|connection|keep-alive)$/)
      }
    }
  }
})

test('property: whatever an event holds, it is one SSE message, one line of NDJSON and one of Nomad', () => {
  const seed = seededRandom('injection').below(2 ** 31)
  const nasty = fc.constantFrom(...breaks)
  const string = fc
    .array(fc.oneof(nasty, fc.string({ unit: 'binary', maxLength: 5 })), { maxLength: 4 })
    .map((parts) => parts.join(''))
  const nameText = string.map((text) => text.replace(/[\p{Cc}\p{Cs}]/gu, '')).filter((text) => text.length > 0)
  const topic = nameText.map((text) => text.replaceAll(':', ';')).filter((text) => text !== '*')
  const value = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 4 },
      string,
      fc.double({ noNaN: true, noDefaultInfinity: true }).filter((number) => !Object.is(number, -0)),
      fc.boolean(),
      fc.constant(null),
      fc.array(tie('value'), { maxLength: 3 }),
      fc
        .array(fc.tuple(string, tie('value')), { maxLength: 3 })
        .map((members) => Object.fromEntries(members) as unknown),
    ),
  })).value
  const spaces = fc.array(fc.constantFrom('', ' ', '\n', '\r', '\r\n', '\t', '\n\n'), { minLength: 1, maxLength: 9 })
  const event = fc.record({
    topic,
    type: nameText,
    key: fc.oneof(nameText, fc.constant('')),
    namespace: fc.oneof(nameText, fc.constant('')),
    filterKeys: fc.array(nameText, { maxLength: 2 }),
    payload: value,
  })
  const sse = sseFormat(1000)
  const lines = ndjsonFormat(1000)
  const nomad = nomadFormat(false)
  fc.assert(
    fc.property(fc.array(event, { minLength: 1, maxLength: 3 }), spaces, fc.boolean(), (events, spaces, asText) => {
      let turn = 0
      const space = () => spaces[turn++ % spaces.length] as string
      const input = events.map((each) =>
        asText ? { ...each, payload: new JsonText(spaced(each.payload, space)) } : each,
      )
      const batch = new StoredBatch('epoch', 7, encodeEvents(input))
      const expected = { index: 7, cursor: 'epoch:7', events }
      const whole = (format: Format) =>
        format.batch(
          batch,
          batch.events.map((event) => format.event(event, batch.index)),
        )
      const block = whole(sse)
      const blocks = sseBlocks(block)
      assert.equal(blocks.length, 1)
      assert.deepEqual(
        blocks[0]?.fields.map(([name]) => name),
        ['id', 'data'],
      )
      assert.deepEqual(blocks[0]?.message?.lastEventId, 'epoch:7')
      assert.deepEqual(JSON.parse(blocks[0]?.message?.data ?? ''), JSON.parse(JSON.stringify(expected)))
      for (const text of [whole(lines), whole(nomad)]) {
        assert.equal(text.search(/[\r\n]/), text.length - 1, 'the only line break is the last character')
        JSON.parse(text)
      }
      assert.deepEqual(JSON.parse(whole(lines)), JSON.parse(JSON.stringify(expected)))
      const { Events } = JSON.parse(whole(nomad)) as { Events: Record<string, unknown>[] }
      assert.deepEqual(
        Events.map(({ Payload, Topic, Key }) => [Payload, Topic, Key]),
        JSON.parse(JSON.stringify(events.map(({ payload, topic, key }) => [payload, topic, key]))),
      )
    }),
    { seed, numRuns: 3000 },
  )
})
