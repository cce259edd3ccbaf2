/** Publishes over HTTP, each event as a batch of its own. */
export async function publish(url: string, ...events: object[]): Promise<void> {
  for (const event of events) {
    const response = await fetch(`${url}/v1/events`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(event),
    })
    if (!response.ok) throw new Error(await response.text())
  }
}

/** An event about `key`. */
export function event(key: string, topic = 'Order'): { topic: string; type: string; key: string } {
  return { topic, type: `${topic}Placed`, key }
}

/** What a line of NDJSON is about: the keys of its events, or the name of its message. */
export function gist(line: string): string {
  const message = JSON.parse(line) as { events?: { key: string }[] }
  return message.events ? message.events.map(({ key }) => key).join(' ') : (Object.keys(message)[0] ?? '')
}
