// OHIF 3.13 over a node: put this beside OHIF's index.html, as app-config.js.
// The origin that OHIF is served from must stand in the node's [dicomweb] origins, unless a proxy
// serves both from one origin.
const node = 'http://127.0.0.1:8043/dicom-web';

window.config = {
  routerBasename: null,
  extensions: [],
  modes: [],
  customizationService: {},
  showStudyList: true,
  maxNumberOfWebWorkers: 3,
  strictZSpacingForVolumeViewport: true,
  defaultDataSourceName: 'wetread',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'wetread',
      configuration: {
        friendlyName: 'wetread',
        name: 'wetread',
        qidoRoot: node,
        wadoRoot: node,
        wadoUriRoot: node,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: true,
        qidoSupportsIncludeField: true,
        supportsFuzzyMatching: false,
        supportsWildcard: true,
        supportsReject: false,
        dicomUploadEnabled: false,
        singlepart: 'bulkdata,video,pdf',
        bulkDataURI: { enabled: true, relativeResolution: 'studies' },
        omitQuotationForMultipartRequest: true,
      },
    },
  ],
};
