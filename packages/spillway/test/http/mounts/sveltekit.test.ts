import { after, before } from 'node:test'
import { createServer, type ViteDevServer } from 'vite'
import { toFetchHandler } from '../../../src/http/fetch.ts'
import { mountSuite } from '../../../src/testing/index.ts'
import { answerBy, listen, type SiteServer, writeSite } from '../../support/framework-site.ts'

let site: SiteServer
let vite: ViteDevServer

before(async () => {
  const root = writeSite('sveltekit', {
    'svelte.config.js': 'export default { kit: {} }',
    'src/app.html': '<html><head>%sveltekit.head%</head><body>%sveltekit.body%</body></html>',
    'src/routes/api/[...path]/+server.js':
      'export const fallback = ({ request }) => globalThis.spillwayHandler(request)',
  })
  // The plugin looks for its site when it is loaded.
  process.chdir(root)
  const { sveltekit } = await import('@sveltejs/kit/vite')
  vite = await createServer({
    root,
    plugins: [await sveltekit()],
    server: { middlewareMode: true, hmr: false, ws: false },
    appType: 'custom',
    logLevel: 'error',
  })
  site = await listen(vite.middlewares)
})

after(async () => {
  site.server.close()
  site.server.closeAllConnections()
  await vite.close()
})

mountSuite('a route of SvelteKit', (broker, options) => {
  answerBy(toFetchHandler(broker, { prefix: '/api', ...options }))
  return Promise.resolve(`${site.url}/api`)
})
