import com.pixelmed.validate.DicomSRValidator;

/** Validates several reports in one process: to read the rules takes longer than most reports do. */
class SeveralReports {
  public static void main(String[] files) throws Exception {
    DicomSRValidator validator = new DicomSRValidator();
    for (String file : files) {
      System.out.println("FILE " + file);
      System.out.print(validator.validate(file));
    }
  }
}
