import { nodeHttp, ours, perEvent, type SocketScenario } from '../scenario.ts'
import { Stage } from '../stage.ts'

export const idle: readonly SocketScenario[] = [1000, 5000].map((clients) => ({
  id: `idle-${clients}`,
  title: `${clients.toLocaleString('en')} idle clients: resident memory of the server for each, after a collection`,
  unit: 'kB',
  contenders: [ours, nodeHttp, 'better-sse', 'fastify + @fastify/sse', 'ws', perEvent],
  async measure(contender) {
    const stage = await Stage.open(contender)
    try {
      // Compiled code and whatever else comes with the first connections is not the price of the next one.
      await stage.connect(200)
      await stage.deliver()
      await stage.disconnect()
      const before = await stage.memory()
      await stage.connect(clients)
      const after = await stage.memory()
      await stage.deliver()
      return { value: (after - before) / clients / 1000, extra: { before } }
    } finally {
      await stage.close()
    }
  },
}))
