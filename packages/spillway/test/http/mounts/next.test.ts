import { after, before } from 'node:test'
import createNext from 'next'
import { toFetchHandler } from '../../../src/http/fetch.ts'
import { mountSuite } from '../../../src/testing/index.ts'
import { answerBy, listen, type SiteServer, writeSite } from '../../support/framework-site.ts'

const methods = ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']

let site: SiteServer & { close(): Promise<void> }

before(async () => {
  process.env.NEXT_TELEMETRY_DISABLED = '1'
  const dir = writeSite('next', {
    'app/api/[...path]/route.js': [
      'const answer = (request) => globalThis.spillwayHandler(request)',
      `export { ${methods.map((method) => `answer as ${method}`).join(', ')} }`,
      "export const dynamic = 'force-dynamic'",
    ].join('\n'),
    'app/layout.js': 'export default ({ children }) => children',
  })
  const next = (createNext as unknown as typeof createNext.default)({ dev: true, dir, customServer: true, quiet: true })
  await next.prepare()
  const handle = next.getRequestHandler()
  site = { ...(await listen((request, response) => void handle(request, response))), close: () => next.close() }
})

after(async () => {
  site.server.close()
  site.server.closeAllConnections()
  await site.close()
  // Its bundler goes on watching. Later than the results of the tests are told.
  setTimeout(() => process.exit(), 1000).unref()
})

mountSuite('a route handler of Next', (broker, options) => {
  answerBy(toFetchHandler(broker, { prefix: '/api', ...options }))
  return Promise.resolve(`${site.url}/api`)
})
