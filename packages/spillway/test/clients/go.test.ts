import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import { JsonText } from '../../src/core/event.ts'
import { publishIndexes, serve } from '../support/http.ts'
import { findProgram, start } from '../support/programs.ts'

const program = findProgram('go') ?? ''
const skip = program === '' ? 'go is not installed' : false

// The types and the loop are those of Nomad's own client.
const reader = `
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
)

type Event struct {
	Topic      string
	Type       string
	Key        string
	Namespace  string
	FilterKeys []string
	Index      uint64
	Payload    json.RawMessage
}

type Events struct {
	Index  uint64
	Events []Event
	Err    error
}

func main() {
	response, err := http.Get(os.Args[1])
	if err != nil {
		panic(err)
	}
	decoder := json.NewDecoder(response.Body)
	for {
		var events Events
		if err := decoder.Decode(&events); err != nil {
			fmt.Println("end", err)
			return
		}
		if events.Index == 0 && len(events.Events) == 0 {
			fmt.Println("heartbeat")
			continue
		}
		for _, event := range events.Events {
			fmt.Println(events.Index, event.Index, event.Topic, event.Key, string(event.Payload))
		}
	}
}
`

test('a reader with json.Decoder gets every event with its bytes, over heartbeats, a gap and the end', {
  skip,
}, async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'spillway-go-'))
  t.after(() => rm(folder, { recursive: true, force: true }))
  await writeFile(path.join(folder, 'main.go'), reader)
  await writeFile(path.join(folder, 'go.mod'), 'module reader\n\ngo 1.19\n')
  const build = start(t, program, ['build', '-o', 'reader', '.'], {
    cwd: folder,
    env: { ...process.env, GOFLAGS: '-mod=mod', GOPROXY: 'off', GOTOOLCHAIN: 'local', CGO_ENABLED: '0' },
  })
  assert.equal(await build.exit, 0, build.complaints())

  const site = await serve(t, { brokerOptions: { capacity: 5 }, handler: { heartbeat: 100 } })
  await publishIndexes(site.broker, 1, 10)
  const oldest = site.broker.status.oldestIndex as number
  const { nextLine, exit, complaints } = start(t, path.join(folder, 'reader'), [`${site.url}/v1/event/stream?index=2`])
  const nextEvent = async () => {
    for (;;) {
      const line = (await nextLine()) ?? assert.fail(complaints())
      if (line !== 'heartbeat') return line
    }
  }
  assert.equal(await nextLine(), 'heartbeat', 'the first line')
  assert.equal(await nextLine(), 'heartbeat', 'the gap')
  for (let index = oldest; index <= 10; index++) {
    assert.equal(await nextLine(), `${index} ${index} Tick k${index % 3} ${index}`)
  }
  const payload = new JsonText('{"CreateTime":1600000000000000001}')
  await site.broker.publish({ topic: 'Job', type: 'JobRegistered', key: 'web', payload }, { index: 9007199254740991 })
  assert.equal(await nextEvent(), '9007199254740991 9007199254740991 Job web {"CreateTime":1600000000000000001}')
  await site.broker.close()
  assert.equal(await nextEvent(), 'end EOF')
  assert.equal(await exit, 0, complaints())
})
